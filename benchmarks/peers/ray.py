from __future__ import annotations

from benchmarks import places
from benchmarks.peers.base import CommandPeer


class Ray(CommandPeer):
    kind = "ray"
    title = "Ray Serve"
    environment = "ray"
    packages = ("ray",)
    settings = {
        "": "`ray.init(num_cpus=2)`, no dashboard, 2 replicas, access log off",
        "batch": "`@serve.batch`, at most 32, 5 ms",
    }

    def command(self, names: list[str]) -> list[str]:
        return [self.program("python"), str(places.SERVERS_DIR / "ray_app.py"), str(self.ports[0])]

    def ready_path(self, name: str) -> str:
        return "/-/healthz"
