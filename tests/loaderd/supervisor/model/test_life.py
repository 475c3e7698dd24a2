"""The moves of a model's state: those that there are, what is told of them, and who waits for them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from loaderd.reporter import ModelRuntime, StateReport
from loaderd.states import LoadPhase, ModelState
from loaderd.supervisor.model.life import Life


class House:
    """Keeps what it is told, in order."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def report(self, report: Any) -> None:
        self.told.append(report)

    def push_routes(self) -> None:
        self.told.append("routes")

    def gpu_left(self, model_id: str, gpu_bytes: int) -> None:
        self.told.append((model_id, gpu_bytes))


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
def life(house: House) -> Life:
    return Life("toy-v1", house)  # type: ignore[arg-type]


def test_a_move_is_reported_before_the_door_is_told(life: Life, house: House) -> None:
    life.move(ModelState.LOADING, "asked for", "op")
    report, routes = house.told
    assert isinstance(report, StateReport)
    assert (report.state, report.reason, report.operation_id) == (ModelState.LOADING, "asked for", "op")
    assert routes == "routes"


def test_a_move_that_there_is_not_changes_nothing(life: Life, house: House) -> None:
    with pytest.raises(RuntimeError, match="toy-v1 cannot go from unloaded to unloading"):
        life.move(ModelState.UNLOADING, "asked for", None)
    assert life.state is ModelState.UNLOADED
    assert house.told == []


def test_what_a_load_waits_for_is_no_move(life: Life, house: House) -> None:
    life.move(ModelState.LOADING, "asked for", "op")
    life.wait("asked for; waits for its turn", "op")
    assert life.state is ModelState.LOADING
    assert life.runtime.phase is LoadPhase.QUEUED
    assert [type(told).__name__ for told in house.told[2:]] == ["StateReport", "OperationProgress"]


def test_the_same_is_not_told_twice(life: Life, house: House) -> None:
    life.tell_again("1 of 2 processes serve it")
    life.tell_again("1 of 2 processes serve it")
    (report,) = house.told
    assert report.is_no_move


def test_what_is_forgotten_gives_its_gpu_memory_back(life: Life, house: House) -> None:
    life.runtime = ModelRuntime(pid=1, gpu_bytes=7)
    life.forget()
    assert house.told == [("toy-v1", 7)]
    assert life.runtime == ModelRuntime()


def test_who_waits_goes_on_when_the_load_is_done(life: Life) -> None:
    async def run() -> None:
        life.move(ModelState.LOADING, "asked for", None)
        waiting = asyncio.create_task(life.settled())
        await asyncio.sleep(0)
        life.wait("asked for; waits for its turn", None)
        await asyncio.sleep(0)
        assert not waiting.done()
        life.move(ModelState.LOADED, "answers its warm-up", None)
        await waiting

    asyncio.run(asyncio.wait_for(run(), 10))
