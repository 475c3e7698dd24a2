from __future__ import annotations

from typing import Any

from benchmarks import places
from benchmarks.models import BenchModel, Item
from benchmarks.peers.base import CommandPeer


class BentoML(CommandPeer):
    kind = "bentoml"
    title = "BentoML"
    environment = "bentoml"
    packages = ("bentoml", "uvicorn")
    settings = {"": "`workers` 2, access log off", "batch": "`batchable`, `max_batch_size` 32"}

    def command(self, names: list[str]) -> list[str]:
        return [self.program("bentoml"), "serve", "bento_service:Peer", "--working-dir", str(places.SERVERS_DIR),
                "--host", "127.0.0.1", "--port", str(self.ports[0])]  # fmt: skip

    def ready_path(self, name: str) -> str:
        return "/readyz"

    def body(self, model: BenchModel, items: list[Item]) -> Any:
        return {"input": items if self.variant == "batch" else items[0]}

    def prediction(self, answer: Any) -> Any:
        return answer[0] if self.variant == "batch" else answer["prediction"]
