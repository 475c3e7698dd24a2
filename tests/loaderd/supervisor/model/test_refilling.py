"""Several processes of one model that die at the worst moment, and those that come in their place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from loaderd.errors import InsufficientMemory
from loaderd.protocol import ModelSpec
from loaderd.states import ModelState
from loaderd.supervisor.model import refilling
from loaderd.supervisor.model.restarts import Restarts

from .houses import Crowd

Toy = Callable[..., ModelSpec]


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
            model._life.crew = None
        else:
            model._life.state = ModelState.UNLOADING
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
        model._life.loaded_at -= 3600.0
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
    monkeypatch.setattr(refilling, "REFILL_SECONDS", 0.001)

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
        assert model._attempts.restarts.restarts == 1
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
        assert model._attempts.restarts == Restarts(
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
