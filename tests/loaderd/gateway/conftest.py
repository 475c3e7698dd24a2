from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.loaderd.gateway.door import SECONDS, TOKEN, Door, grant, row
from tests.loaderd.worker.process import ModelProcess, spec

EVERYTHING = {TOKEN: grant("ada", "predict", "load", "unload")}


@dataclass
class Served:
    """A gateway in front of model processes."""

    door: Door
    http: httpx.Client
    models: dict[str, ModelProcess]
    table: dict[str, dict[str, Any]]
    grpc_port: int | None = None

    def reset(self) -> None:
        """Everything is loaded and ada may do everything."""
        self.table = {model_id: row(model, model.signature) for model_id, model in self.models.items()}
        self.door.answer = lambda message: []
        for queue in (self.door.commands, self.door.seen, self.door.kept, self.door.silent):
            while not queue.empty():
                queue.get()
        self.door.allow(EVERYTHING)
        self.door.route(self.table)

    def change(self, model_id: str, **changes: Any) -> None:
        self.table[model_id] |= changes
        self.door.route(self.table)


@contextmanager
def serving(
    folder: Path, *kinds: str, grpc: bool = False, predict_timeout_seconds: float = SECONDS
) -> Iterator[Served]:
    with ExitStack() as stack:
        models = [stack.enter_context(ModelProcess(spec(kind), folder / f"{kind}.sock")) for kind in kinds]
        arguments = ("--grpc-port", "0") if grpc else ()
        door = stack.enter_context(Door(folder, *arguments, predict_timeout_seconds=predict_timeout_seconds))
        door.listening()
        grpc_port = door.event()["port"] if grpc else None
        for model in models:
            model.ready()
        served = Served(door, door.http(), {model.spec.model_id: model for model in models}, {}, grpc_port)
        served.reset()
        yield served


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("standing"), "echo", "double", "classifier") as served:
        yield served


@pytest.fixture
def served(standing: Served) -> Served:
    """echo-v1, double-v1 and classifier-v1, loaded; shared by a module's tests, which leave them alive."""
    standing.reset()
    return standing


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Served]:
    """echo-v1 and classifier-v1 for one test, which may end them."""
    with serving(tmp_path, "echo", "classifier") as served:
        yield served


@pytest.fixture
def door(served: Served) -> Door:
    """The gateway, knowing no model."""
    served.door.route({})
    return served.door


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A fifo: a text `gate:<it>` keeps the echo model busy until something is written to it."""
    os.mkfifo(tmp_path / "gate")
    return tmp_path / "gate"
