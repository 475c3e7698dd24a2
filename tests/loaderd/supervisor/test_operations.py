"""The one end of each operation, where a cancellation comes at the worst moment."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from loaderd.errors import InsufficientMemory, LoaderdError
from loaderd.reporter import OperationEnded, Report
from loaderd.supervisor.operations import Operations


@pytest.mark.parametrize("steps", [0, 1])
def test_a_command_that_is_cancelled_ends_its_operation_also_before_its_first_step(steps: int) -> None:
    async def cancel() -> list[Report]:
        reports: list[Report] = []
        operations = Operations(reports.append)
        command: Coroutine[Any, Any, Any] = asyncio.sleep(3600)
        operations.accept("op", command)
        (task,) = operations.running
        for _ in range(steps):
            await asyncio.sleep(0)
        assert operations.cancel("op") is True
        await asyncio.wait({task})
        assert operations.running == []
        return reports

    (ended,) = asyncio.run(cancel())
    assert isinstance(ended, OperationEnded)
    assert (ended.operation_id, ended.result) == ("op", None)
    assert ended.error is not None
    assert ended.error["code"] == "cancelled"


def test_an_operation_that_is_delivered_again_is_run_once() -> None:
    async def run() -> None:
        operations = Operations(lambda report: None)
        began: list[int] = []

        async def command(number: int) -> dict[str, Any]:
            began.append(number)
            return {}

        assert operations.accept("op", command(1))["known"] is False
        assert operations.accept("op", command(2))["known"] is True
        await asyncio.gather(*operations.running)
        assert operations.accept("op", command(3))["known"] is True, "also when it is done"
        assert began == [1]

    asyncio.run(run())


def test_a_stop_cancels_all_but_unloads_and_says_why() -> None:
    async def run() -> list[Report]:
        reports: list[Report] = []
        operations = Operations(reports.append)
        done = asyncio.Event()

        async def unload() -> dict[str, Any]:
            await done.wait()
            return {"status": "unloaded"}

        operations.accept("load", asyncio.sleep(3600, {}))
        operations.accept("unload", unload(), is_unload=True)
        operations.cancel_all()
        running = operations.running
        done.set()
        await asyncio.wait(running)
        return reports

    load, unload = asyncio.run(asyncio.wait_for(run(), 10))
    assert isinstance(load, OperationEnded)
    assert isinstance(unload, OperationEnded)
    assert load.error is not None
    assert load.error["code"] == "shutting_down"
    assert unload.result == {"status": "unloaded"}


def test_no_row_is_told_of_what_the_daemon_does_of_its_own_accord() -> None:
    async def run() -> None:
        reports: list[Report] = []
        operations = Operations(reports.append)
        failures: list[LoaderdError | None] = []
        refusal = InsufficientMemory("there is no room")

        async def fail() -> dict[str, Any]:
            raise refusal

        operations.run_own(fail(), failures.append)
        await asyncio.wait(operations.running)
        assert failures == [refusal]
        assert reports == []

    asyncio.run(run())
