"""Daemons around one model, whose processes are made up and die when it is worst."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from loaderd.errors import ModelProcessDied
from loaderd.rules import Rules
from loaderd.supervisor.config import DaemonConfig
from loaderd.supervisor.model.managed import ManagedModel


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

        def death(*_: Any) -> ModelProcessDied:
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


class Crowd(House):
    """Its processes die when the test says so. loads: whether one that is started becomes ready by itself, and so
    soon. told: what health was told."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = replace(self.config, use_zygotes=True, **config)
        self.model = ManagedModel("toy-v1", self)  # type: ignore[arg-type]
        self.processes: list[Any] = []
        self.loads = True
        self.load_seconds = 0.0
        self.told: list[tuple[str, Any]] = []
        self._more = asyncio.Event()

    async def start_process(self, *_: Any, **__: Any) -> Any:
        process = await super().start_process()
        process.child.pid = len(self.processes) + 1
        message = process.ready.result()
        process.ready = asyncio.get_running_loop().create_future()
        process.hung = ""
        process.log_tail = str

        def become_ready() -> None:
            if not process.ready.done():
                process.ready.set_result(message)

        async def end() -> None:
            process.child.is_alive = False

        async def answer() -> dict[str, Any]:
            return {}

        def die() -> None:
            process.child.is_alive = False
            process.child.exited.set_result(None)

        process.become_ready, process.end, process.die = become_ready, end, die
        process.sample = process.drain = answer
        if self.loads:
            asyncio.get_running_loop().call_later(self.load_seconds, become_ready)
        self.processes.append(process)
        self._more.set()
        return process

    async def publish_routes(self) -> None:
        self.push_routes()

    async def started(self, count: int) -> Any:
        """The count-th process, once it is started."""
        while len(self.processes) < count:
            self._more.clear()
            await self._more.wait()
        return self.processes[count - 1]

    async def settled(self) -> None:
        """Returns when all that can go on without a wait has gone on."""
        for _ in range(50):
            await asyncio.sleep(0)

    @property
    def alive(self) -> list[Any]:
        return [process for process in self.processes if process.child.is_alive]

    def __getattr__(self, name: str) -> Any:
        if name not in ("died", "left", "survived", "is_short", "stays_short", "gave_up", "refused"):
            raise AttributeError(name)
        return lambda *facts, **_: self.told.append((name, facts))
