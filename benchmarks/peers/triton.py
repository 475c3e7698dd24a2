from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path
from typing import Any

from benchmarks import environments, places
from benchmarks.models import BenchModel, Item
from benchmarks.peers.base import CommandPeer, OpenInferencePeer

DELAY = "`dynamic_batching`, 5 ms queue delay, at most 32"


class Triton(OpenInferencePeer, CommandPeer):
    """The server binary that PyTriton's wheel carries, with its Python backend."""

    kind = "triton"
    title = "Triton, Python backend"
    environment = "triton"
    packages = ("nvidia-pytriton",)
    settings = {"": "2 instances", "batch": DELAY}

    def layouts(self) -> tuple[str, ...]:
        return (self._layout(),)

    def variables(self) -> dict[str, str]:
        """The backend's process needs the libpython that belongs to its Python, and the libraries of the wheel."""
        path = f"{places.SERVERS_DIR}:{_site()}"
        libraries = f"{_libpython_dir()}:{_site() / 'nvidia_pytriton.libs'}"
        return {"PYTHONPATH": path, "BENCH_PATH": path, "LD_LIBRARY_PATH": libraries}

    def command(self, names: list[str]) -> list[str]:
        triton = _site() / "pytriton" / "tritonserver"
        backends = self.folder / "backends"
        shutil.copytree(triton / "backends", backends)
        version = _site().parent.name.removeprefix("python")
        shutil.copy(triton / "python_backend_stubs" / version / "triton_python_backend_stub", backends / "python")
        return [
            str(triton / "bin" / "tritonserver"),
            *("--model-repository", str(self.layout(self._layout()))),
            *("--backend-directory", str(backends)),
            *("--http-address", "127.0.0.1", "--http-port", str(self.ports[0])),
            *("--grpc-port", str(self.ports[1]), "--metrics-port", str(self.ports[2])),
            *("--model-control-mode", "explicit"),
            *(f"--load-model={name}" for name in names),
        ]

    def body(self, model: BenchModel, items: list[Item]) -> Any:
        data, size = (items, 1) if model.is_text else (items[0], 64)
        return {"inputs": [{"name": "INPUT", "shape": [1, size], "datatype": model.datatype, "data": data}]}

    def _layout(self) -> str:
        return "triton-batch" if self.variant == "batch" else "triton"


class PyTriton(Triton):
    kind = "pytriton"
    title = "PyTriton"
    settings = {"": "`Triton.bind` with two Python callables, no queue delay", "batch": "5 ms queue delay, at most 32"}

    def layouts(self) -> tuple[str, ...]:
        return ()

    def command(self, names: list[str]) -> list[str]:
        script = str(places.SERVERS_DIR / "pytriton_server.py")
        return [self.program("python"), script, *(str(port) for port in self.ports[:3])]


@functools.cache
def _site() -> Path:
    lib = places.environments_dir() / "triton" / "lib"
    return next(lib.glob("python3*")) / "site-packages"


@functools.cache
def _libpython_dir() -> str:
    ask = "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"
    done = subprocess.run(
        [str(environments.python_of("triton")), "-c", ask], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
