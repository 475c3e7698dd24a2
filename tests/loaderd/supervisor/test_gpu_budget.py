"""The GPU's side of the budget, on a GPU that the test plays: what an ended process held counts until it is free."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loaderd.protocol import ModelSpec
from loaderd.reporter import Heartbeat, Report
from loaderd.resources import Gpus
from loaderd.rules import Rules
from loaderd.scheduler import Decision
from loaderd.states import ModelState
from loaderd.supervisor.budget import Budget
from loaderd.supervisor.config import DaemonConfig
from loaderd.supervisor.daemon import Daemon

GIB = 2**30


class Gpu:
    """80 GiB, of which `free` are free by NVML."""

    def __init__(self) -> None:
        self.free = 10 * GIB

    def __bool__(self) -> bool:
        return True

    def free_bytes(self) -> int:
        return self.free

    def total_bytes(self) -> int:
        return 80 * GIB


class House:
    """No model is loaded any more."""

    def __init__(self) -> None:
        self.config = DaemonConfig(Path("/r"), Path("/l"), Path("/c"), Path("/g"), gpu_return_seconds=5.0)
        self.rules = Rules(max_gpu_memory_percent=100.0)
        self.gpus = Gpu()
        self.telemetry = None

    def models(self) -> Iterable[Any]:
        return []

    def model(self, model_id: str) -> Any:
        return SimpleNamespace(with_measurements=lambda spec: spec, state=ModelState.UNLOADED)

    def forks(self, framework: str) -> bool:
        return True

    async def look(self, max_age_seconds: float) -> None:
        pass


def spec(gpu_bytes: int) -> ModelSpec:
    return ModelSpec("large", "large", "1", "toy", "toy", "/store", "d" * 64, peak_bytes=1, gpu_bytes=gpu_bytes)


def test_what_several_processes_hold_was_measured_of_all_of_them() -> None:
    budget = Budget(House(), lambda: None)  # type: ignore[arg-type]
    alone = replace(spec(40 * GIB), peak_bytes=10 * GIB)
    both = replace(alone, instances=2, resident_bytes=12 * GIB)
    assert budget.wish(both).gpu_bytes == 40 * GIB
    assert budget.wish(both).bytes == (10 + 6) * GIB, "the second one peaks beside what the first one holds"
    assert budget.wish(replace(both, resident_bytes=None)).bytes == 2 * 10 * GIB, "at most its peak"
    assert budget.wish(alone).bytes == 10 * GIB


def test_a_load_waits_for_gpu_memory_that_is_on_its_way_back() -> None:
    async def run() -> None:
        house, changed = House(), asyncio.Event()
        budget = Budget(house, changed.set)  # type: ignore[arg-type]
        await budget.look(0.0)
        wish = budget.wish(spec(40 * GIB))
        assert budget.decide(wish).decision is Decision.REFUSED
        budget.gpu_left("gone", 60 * GIB)
        assert budget.decide(wish).decision is Decision.WAITS
        house.gpus.free = 70 * GIB
        await asyncio.wait_for(changed.wait(), 5)
        assert budget.decide(wish).decision is Decision.FITS
        await budget.close()

    asyncio.run(run())


def test_gpu_memory_that_does_not_come_back_is_waited_for_up_to_a_deadline() -> None:
    async def run() -> None:
        house, changed = House(), asyncio.Event()
        house.config = DaemonConfig(Path("/r"), Path("/l"), Path("/c"), Path("/g"), gpu_return_seconds=0.2)
        budget = Budget(house, changed.set)  # type: ignore[arg-type]
        await budget.look(0.0)
        budget.gpu_left("gone", 60 * GIB)
        await asyncio.wait_for(changed.wait(), 5)
        assert budget.decide(budget.wish(spec(40 * GIB))).decision is Decision.REFUSED
        await budget.close()

    asyncio.run(run())


class Driver(Gpu):
    """As the daemon sees it. answers: facts() waits for it."""

    bytes_of = staticmethod(Gpus.bytes_of)
    reason_for_none = ""

    def __init__(self, used: Mapping[int, int | None]) -> None:
        super().__init__()
        self.answers = threading.Event()
        self._used = used

    def bytes_by_pid(self) -> Mapping[int, int | None]:
        return self._used

    def facts(self) -> list[dict[str, Any]]:
        assert self.answers.wait(20)
        return [{"index": 0}]


def daemon_with(driver: Driver, folder: Path, reports: list[Report]) -> Daemon:
    config = DaemonConfig(folder, folder, folder, folder)
    daemon = Daemon(config, SimpleNamespace(report=reports.append))  # type: ignore[arg-type]
    daemon._house.gpus = driver  # type: ignore[assignment]
    return daemon


NOBODY = 2**22 + 1  # above the highest pid that Linux gives


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        ({os.getpid(): 7 * GIB}, 7 * GIB),
        ({os.getppid(): GIB}, 0),
        ({NOBODY: GIB}, None),
        ({os.getpid(): None}, None),
    ],
    ids=["listed", "others are listed", "other numbers than here", "not told"],
)
def test_gpu_memory_that_nvml_did_not_measure_is_not_taken_for_none(
    tmp_path: Path, used: dict[int, int | None], expected: int | None
) -> None:
    async def ask() -> int | None:
        return await daemon_with(Driver(used), tmp_path, [])._house.gpu_bytes_of(os.getpid())

    assert asyncio.run(ask()) == expected


def test_a_driver_that_does_not_answer_holds_up_no_heartbeat(tmp_path: Path) -> None:
    async def beat() -> list[Any]:
        reports: list[Report] = []
        driver = Driver({})
        daemon = daemon_with(driver, tmp_path, reports)
        look = asyncio.create_task(daemon._duties._look_at_gpus())
        await asyncio.sleep(0)
        await daemon._duties._heartbeat()
        driver.answers.set()
        await look
        await daemon._duties._heartbeat()
        return [report.facts["gpus"] for report in reports if isinstance(report, Heartbeat)]

    assert asyncio.run(asyncio.wait_for(beat(), 10)) == [[], [{"index": 0}]]
