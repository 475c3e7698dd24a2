"""A load whose processes die or hang at the worst moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from loaderd.errors import ModelTimeout
from loaderd.protocol import ModelSpec

from .houses import Crowd, House

Toy = Callable[..., ModelSpec]


def test_the_door_is_told_of_a_process_that_dies_before_its_model_is_loaded(toy: Toy) -> None:
    async def load() -> list[str | None]:
        house = House()
        await house.model.load(toy(), None, "asked for")
        return house.routes

    told = asyncio.run(load())
    assert told[told.index("socket-1") + 1] is None
    assert told[-1] == "socket-2"


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
