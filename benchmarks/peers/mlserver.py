from __future__ import annotations

import json
import shutil
from typing import Any

from benchmarks.models import BenchModel, Item
from benchmarks.peers.base import CommandPeer, OpenInferencePeer


class MLServer(OpenInferencePeer, CommandPeer):
    kind = "mlserver"
    title = "MLServer"
    environment = "mlserver"
    packages = ("mlserver", "mlserver-sklearn", "fastapi", "uvloop")
    settings = {
        "": "`parallel_workers` 2, `debug` off",
        "batch": "`max_batch_size` 32, `max_batch_time` 5 ms",
        "inprocess": "`parallel_workers` 0",
    }

    def layouts(self) -> tuple[str, ...]:
        return (self._layout(),)

    def command(self, names: list[str]) -> list[str]:
        root = self.folder / "models"
        for name in names:
            shutil.copytree(self.layout(self._layout()) / name, root / name)
        settings = {
            "debug": False,
            "host": "127.0.0.1",
            "http_port": self.ports[0],
            "grpc_port": self.ports[1],
            "metrics_port": self.ports[2],
            "parallel_workers": 0 if self.variant == "inprocess" else 2,
        }
        (root / "settings.json").write_text(json.dumps(settings))
        return [self.program("mlserver"), "start", str(root)]

    def body(self, model: BenchModel, items: list[Item]) -> Any:
        if not model.is_text:
            return {"inputs": [{"name": "INPUT", "shape": [1, 64], "datatype": model.datatype, "data": items[0]}]}
        tensor = {"name": "INPUT", "shape": [1], "datatype": "BYTES", "data": items}
        if model.name == "text":  # its scikit-learn runtime must be told that bytes are text
            return {
                "parameters": {"content_type": "str"},
                "inputs": [{**tensor, "parameters": {"content_type": "str"}}],
            }
        return {"inputs": [tensor]}

    def _layout(self) -> str:
        return "mlserver-batch" if self.variant == "batch" else "mlserver"
