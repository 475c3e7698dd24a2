from __future__ import annotations

from benchmarks.peers.base import CommandPeer


class Null(CommandPeer):
    """Answers a constant: what HTTP and the client cost on this machine."""

    kind = "null"
    title = "an empty HTTP answer"
    environment = "fastapi"
    packages = ("uvicorn",)
    settings = {"": "raw ASGI, a constant; `uvicorn --workers 2`"}
    models = ("text",)

    def command(self, names: list[str]) -> list[str]:
        return [self.program("uvicorn"), "null_app:app", "--port", str(self.ports[0]), "--workers", "2",
                "--no-access-log"]  # fmt: skip

    def check(self, name: str) -> None:
        """There is nothing to check."""
