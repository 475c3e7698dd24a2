from __future__ import annotations

import asyncio

import pytest

from loaderd.errors import Overloaded
from loaderd.gateway.body import SMALL_BODY_BYTES, Budget
from loaderd.gateway.deadline import Deadline
from loaderd.gateway.grpc.memory import Memory

LARGE = bytes(SMALL_BODY_BYTES + 1)


def test_a_small_message_holds_nothing() -> None:
    async def hold() -> int:
        async with Memory(Budget(0)).holding(bytes(SMALL_BODY_BYTES), Deadline.after(1)) as held_bytes:
            return held_bytes

    assert asyncio.run(hold()) == 0


def test_large_ones_wait_for_room_and_too_many_are_refused() -> None:
    async def run() -> list[str]:
        memory = Memory(Budget(2 * len(LARGE)), max_waiting_bytes=len(LARGE))
        told: list[str] = []
        is_full, leave = asyncio.Event(), asyncio.Event()

        async def hold(name: str) -> None:
            async with memory.holding(LARGE, Deadline.after(20)) as held_bytes:
                assert held_bytes == len(LARGE)
                told.append(f"{name} holds")
                if len(told) == 2:
                    is_full.set()
                await leave.wait()

        async with asyncio.TaskGroup() as tasks:
            for name in ("first", "second", "third"):
                tasks.create_task(hold(name))
            await is_full.wait()
            with pytest.raises(Overloaded, match="take all of the gateway's memory"):
                await hold("fourth")
            told.append("fourth is refused")
            leave.set()
        return told

    assert asyncio.run(run()) == ["first holds", "second holds", "fourth is refused", "third holds"]


def test_the_wait_ends_at_the_deadline_and_leaves_nothing_behind() -> None:
    async def run() -> None:
        budget = Budget(len(LARGE))
        memory = Memory(budget, max_waiting_bytes=len(LARGE))
        await budget.take(len(LARGE))
        with pytest.raises(Overloaded):
            async with memory.holding(LARGE, Deadline.after(0.01)):
                pass
        budget.give_back(len(LARGE))
        async with memory.holding(LARGE, Deadline.after(20)) as held_bytes:
            assert held_bytes == len(LARGE)

    asyncio.run(run())
