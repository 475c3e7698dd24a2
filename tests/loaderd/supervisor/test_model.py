"""One model's moves, with processes that die at the worst moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loaderd.errors import InsufficientMemory, ModelProcessDied, ModelTimeout
from loaderd.protocol import ModelSpec
from loaderd.rules import Rules
from loaderd.states import ModelState
from loaderd.supervisor import model as model_module
from loaderd.supervisor.config import DaemonConfig
from loaderd.supervisor.model import ManagedModel
from loaderd.supervisor.recovery import Restarts

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


def test_the_door_is_told_of_a_process_that_dies_before_its_model_is_loaded(toy: Toy) -> None:
    async def load() -> list[str | None]:
        house = House()
        await house.model.load(toy(), None, "asked for")
        return house.routes

    told = asyncio.run(load())
    assert told[told.index("socket-1") + 1] is None
    assert told[-1] == "socket-2"


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


def test_a_process_that_was_on_its_way_when_the_last_one_died_is_ended(toy: Toy) -> None:
    async def run() -> None:
        house = Crowd()
        model = house.model
        await model.load(replace(toy(), instances=2), None, "asked for")
        house.loads = False
        house.processes[0].die()
        replacement = await house.started(3)
        house.loads = True
        house.processes[1].die()
        await house.settled()
        replacement.become_ready()
        await model.settled()
        await house.settled()
        assert model.crew is not None
        assert len(house.alive) == 2
        assert [process.child.pid for process in house.alive] == model.crew.pids
        await model.unload(None, "asked for")
        await model.close()
        assert house.alive == []

    asyncio.run(asyncio.wait_for(run(), 10))


@pytest.mark.parametrize("how", ["another crew", "not loaded"])
def test_a_process_that_comes_too_late_for_its_crew_is_ended(toy: Toy, how: str) -> None:
    async def run() -> None:
        house = Crowd()
        model = house.model
        await model.load(replace(toy(), instances=2), None, "asked for")
        house.loads = False
        house.processes[0].die()
        replacement = await house.started(3)
        crew = model.crew
        if how == "another crew":
            model.crew = None
        else:
            model.state = ModelState.UNLOADING
        replacement.become_ready()
        await house.settled()
        assert crew is not None
        assert crew.pids == [2]
        assert [process.child.pid for process in house.alive] == [2]

    asyncio.run(asyncio.wait_for(run(), 10))


def test_replacements_that_die_young_are_given_up_however_long_the_model_is_loaded(toy: Toy) -> None:
    async def run() -> None:
        house = Crowd(restart_pause_seconds=0.001)
        model = house.model
        await model.load(replace(toy(), instances=2), None, "asked for")
        for process in house.processes:
            process.serves_since -= 3600.0
        model._loaded_at -= 3600.0
        house.processes[1].die()
        attempts = house.rules.max_load_attempts
        for number in range(attempts):
            replacement = await house.started(3 + number)
            await replacement.ready
            await house.settled()
            replacement.die()
            await house.settled()
        assert len(house.processes) == 2 + attempts
        assert [facts[0] for name, facts in house.told if name == "stays_short"] == ["toy-v1"]
        assert model.state is ModelState.LOADED
        assert model.runtime.pid == 1

    asyncio.run(asyncio.wait_for(run(), 10))


def test_a_replacement_without_room_is_tried_again_and_is_no_attempt(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_module, "REFILL_SECONDS", 0.001)

    class Full(Crowd):
        """Has no room for one process more until the test says so."""

        has_room = False
        refusals = 0
        refused_often = asyncio.Event()
        said: list[str] = []

        def report(self, report: Any) -> None:
            if getattr(report, "is_no_move", False):
                self.said.append(report.reason)

        @asynccontextmanager
        async def admitted(self, *_: Any, **how: Any) -> AsyncIterator[None]:
            if how.get("joins") and not self.has_room:
                self.refusals += 1
                if self.refusals == 2 * self.rules.max_load_attempts:
                    self.refused_often.set()
                raise InsufficientMemory("there is no room")
            yield

    async def run() -> None:
        house = Full()
        model = house.model
        await model.load(replace(toy(), instances=2), None, "asked for")
        house.processes[1].die()
        await house.refused_often.wait()
        assert (await model.load(toy("toy-v1b"), None, "asked for"))["status"] == "loaded", "nobody waits for it"
        short = "1 of 2 processes serve it; another one waits for memory: there is no room"
        assert model.snapshot()["reason"] == short
        assert ("is_short", ("toy-v1", short)) in house.told
        house.has_room = True
        await (await house.started(3)).ready
        await house.settled()
        assert model.crew is not None
        assert model.crew.pids == [1, 3]
        assert house.said == [short, "2 of 2 processes serve it"], "once, however often it was tried"
        assert model.reason == "2 of 2 processes serve it"
        assert model._restarts.restarts == 1
        await model.close()

    asyncio.run(asyncio.wait_for(run(), 10))


def test_two_deaths_at_once_are_one_attempt(toy: Toy) -> None:
    async def run() -> None:
        house = Crowd()
        model = house.model
        await model.load(replace(toy(), instances=3), None, "asked for")
        house.processes[0].die()
        house.processes[1].die()
        for number in (4, 5):
            await (await house.started(number)).ready
        await house.settled()
        assert model.crew is not None
        assert model.crew.pids == [3, 4, 5]
        assert model.runtime.pid == 3
        assert model._restarts == Restarts(
            house.config.restart_pause_seconds,
            house.config.max_restart_pause_seconds,
            house.config.stable_seconds,
            restarts=1,
        )
        for process in house.alive:
            process.die()  # those of one attempt, and the last one with them
        await house.settled()
        assert [facts for name, facts in house.told if name == "died"] == [("toy-v1", 2, False)]
        await model.end_recovery()

    asyncio.run(asyncio.wait_for(run(), 10))


def test_each_process_has_the_time_of_a_load(toy: Toy) -> None:
    async def load(load_seconds: float) -> None:
        house = Crowd()
        house.load_seconds = load_seconds
        await house.model.load(replace(toy(), instances=4, timeout_seconds=0.7), None, "asked for")

    async def run() -> None:
        await load(0.2)  # 0.8 s together
        house = Crowd()
        house.loads = False
        with pytest.raises(ModelTimeout):
            await house.model.load(replace(toy("toy-v2"), instances=2, timeout_seconds=0.05), None, "asked for")

    asyncio.run(asyncio.wait_for(run(), 10))
