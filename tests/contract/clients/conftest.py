"""A gateway in front of real model processes, for other people's clients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from loaderd.errors import LoadFailed
from tests.loaderd.gateway.conftest import Served, gate, serving
from tests.loaderd.gateway.door import TOKEN

__all__ = ["gate"]  # a fixture of the gateway's tests

HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(autouse=True)
def no_network() -> None:
    """Clients reach the gateway over TCP, as they would anywhere; nothing here reaches further."""


class Keeper:
    """Answers the gateway's questions from what the model processes say, as the supervisor does. ended: the commands
    that came, in order."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self.ended: list[tuple[str, str, str]] = []

    def __call__(self, message: dict[str, Any]) -> Any:
        match message["command"]:
            case "index":
                return [
                    {"model_id": name, "name": row["lineage"], "version": row["version"], "state": row["state"]}
                    for name, row in self._served.table.items()
                ] + [{"model_id": "spam-v1", "name": "spam", "version": "1", "state": "error", "reason": "no memory"}]
            case "statistics":
                return {
                    name: {
                        "counters": self._served.models[name].stats(),
                        "private_bytes": 30_000_000,
                        "gpu_bytes": None,
                    }
                    for name in message["model_ids"]
                }
            case "load" if message["model_id"] == "spam-v1":
                error = LoadFailed("spam-v1 could not be loaded: no memory.").to_message()
                return {"state": "failed", "result": None, "error": error}
            case command:
                self.ended.append((command, message["model_id"], message["user"]))
                return {"state": "succeeded", "result": {}, "error": None}


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("clients"), "mirror", "classifier", "double", "echo") as served:
        yield served


@pytest.fixture
def served(standing: Served) -> Served:
    standing.reset()
    standing.door.answer = Keeper(standing)
    return standing


@pytest.fixture
def address(served: Served) -> str:
    return f"127.0.0.1:{served.door.port}"
