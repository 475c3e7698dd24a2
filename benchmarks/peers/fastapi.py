from __future__ import annotations

from benchmarks.peers.base import CommandPeer


class FastAPI(CommandPeer):
    """What people write by hand."""

    kind = "fastapi"
    title = "FastAPI by hand"
    environment = "fastapi"
    packages = ("fastapi", "uvicorn", "uvloop")
    settings = {
        "": "`uvicorn --workers 2`, uvloop and httptools; a `def` endpoint (thread pool)",
        "async": "an `async def` endpoint (the model on the event loop)",
    }

    def command(self, names: list[str]) -> list[str]:
        return [self.program("uvicorn"), "fastapi_app:app", "--port", str(self.ports[0]), "--workers", "2",
                "--no-access-log"]  # fmt: skip
