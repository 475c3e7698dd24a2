"""One model's moves, with a process that dies at the worst moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from loaderd.errors import ModelProcessDied
from loaderd.protocol import ModelSpec
from loaderd.rules import Rules
from loaderd.supervisor.config import DaemonConfig
from loaderd.supervisor.model import ManagedModel

Toy = Callable[..., ModelSpec]


class House:
    """Its first process dies when the door is told of it. routes: what the door was told, in order."""

    def __init__(self) -> None:
        self.config = DaemonConfig(Path("/r"), Path("/l"), Path("/c"), Path("/g"))
        self.rules = Rules()
        self.stopping = asyncio.Event()
        self.routes: list[str | None] = []
        self.model = ManagedModel("toy-v1", self)  # type: ignore[arg-type]
        self._started = 0

    @asynccontextmanager
    async def admitted(self, *_: Any, **__: Any) -> AsyncIterator[None]:
        yield

    async def start_process(self, *_: Any, **__: Any) -> Any:
        self._started += 1
        loop = asyncio.get_running_loop()
        ready, exited = loop.create_future(), loop.create_future()
        ready.set_result({"signature": {"inputs": [], "outputs": [], "labels": []}})

        async def end() -> None:
            pass

        def death(_: Any) -> ModelProcessDied:
            return ModelProcessDied("it died", exit_signal=9)

        child = SimpleNamespace(pid=1, is_alive=True, exited=exited)
        return SimpleNamespace(
            forked=True,
            child=child,
            ready=ready,
            data_socket=f"socket-{self._started}",
            counters={},
            end=end,
            death=death,
        )

    async def publish_routes(self) -> None:
        self.push_routes()
        child = self.model.crew.first.child  # type: ignore[union-attr]
        if self._started == 1:
            child.is_alive = False
            child.exited.set_result(None)

    def push_routes(self) -> None:
        self.routes.append(next(iter(self.model.route()["sockets"]), None))

    async def memory_of(self, pid: int) -> None:
        return None

    async def load_peak_of(self, pid: int) -> None:
        return None

    async def gpu_bytes_of(self, pid: int) -> None:
        return None

    def report(self, *_: Any) -> None:
        pass

    def loaded(self, *_: Any) -> None:
        pass


def test_the_door_is_told_of_a_process_that_dies_before_its_model_is_loaded(toy: Toy) -> None:
    async def load() -> list[str | None]:
        house = House()
        await house.model.load(toy(), None, "asked for")
        return house.routes

    told = asyncio.run(load())
    assert told[told.index("socket-1") + 1] is None
    assert told[-1] == "socket-2"
