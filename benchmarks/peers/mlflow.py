from __future__ import annotations

from typing import Any

from benchmarks.models import BenchModel, Item
from benchmarks.peers.base import CommandPeer


class MLflow(CommandPeer):
    """One model for each server."""

    kind = "mlflow"
    title = "MLflow"
    environment = "mlflow"
    packages = ("mlflow", "uvicorn")
    settings = {"": "`mlflow models serve --env-manager local --workers 2`"}
    models = ("text", "digits", "minilm")

    def layouts(self) -> tuple[str, ...]:
        return ("mlflow",)

    def command(self, names: list[str]) -> list[str]:
        (name,) = names
        return [self.program("mlflow"), "models", "serve", "-m", str(self.layout("mlflow") / name), "--env-manager",
                "local", "--host", "127.0.0.1", "--port", str(self.ports[0]), "--workers", "2"]  # fmt: skip

    def path(self, name: str) -> str:
        return "/invocations"

    def body(self, model: BenchModel, items: list[Item]) -> Any:
        return {"inputs": items}

    def prediction(self, answer: Any) -> Any:
        value = answer["predictions"][0]
        return value["label"] if isinstance(value, dict) else value
