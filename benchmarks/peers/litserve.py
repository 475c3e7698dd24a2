from __future__ import annotations

from benchmarks import places
from benchmarks.peers.base import CommandPeer


class LitServe(CommandPeer):
    kind = "litserve"
    title = "LitServe"
    environment = "litserve"
    packages = ("litserve", "fastapi", "uvicorn")
    settings = {
        "": "`workers_per_device` 2, `restart_workers` on",
        "batch": "`max_batch_size` 32, `batch_timeout` 5 ms",
    }

    def command(self, names: list[str]) -> list[str]:
        return [self.program("python"), str(places.SERVERS_DIR / "lit_server.py"), str(self.ports[0])]
