"""The GPU's side of the budget, on a GPU that the test plays: what an ended process held counts until it is free."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from loaderd.protocol import ModelSpec
from loaderd.rules import Rules
from loaderd.scheduler import Decision
from loaderd.states import ModelState
from loaderd.supervisor.budget import Budget
from loaderd.supervisor.config import DaemonConfig

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

    async def look(self, max_age_seconds: float) -> None:
        pass


def spec(gpu_bytes: int) -> ModelSpec:
    return ModelSpec("large", "large", "1", "toy", "toy", "/store", "d" * 64, peak_bytes=1, gpu_bytes=gpu_bytes)


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
