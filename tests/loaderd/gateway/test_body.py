"""Bodies share a budget and do not wait for it without end."""

from __future__ import annotations

import asyncio

import pytest

from loaderd.errors import Overloaded
from loaderd.gateway.body import SMALL_BODY_BYTES, Body, BodyTooSlow, Budget
from loaderd.gateway.deadline import Deadline

LARGE = bytes(SMALL_BODY_BYTES + 1)
PATIENT_SECONDS = 20.0


class Pieces:
    """A body's first piece, which is there; more: a second one never comes."""

    def __init__(self, first: bytes, more: bool) -> None:
        self._pieces = [first]
        self._more = more

    async def piece(self) -> bytes | None:
        if self._pieces:
            return self._pieces.pop()
        if self._more:
            await asyncio.Event().wait()
        return None


def body(content: bytes, budget: Budget, seconds: float, *, more: bool = False) -> Body:
    return Body(Pieces(content, more), budget, Deadline.after(seconds))


def test_a_body_that_stalls_is_given_up() -> None:
    async def read() -> None:
        await body(b"small", Budget(), 0.01, more=True).read(None, None)

    with pytest.raises(BodyTooSlow, match=r"The request's body was not complete within 0\.01 s"):
        asyncio.run(read())


def test_who_finds_no_memory_is_told_to_come_again_and_those_behind_move_up() -> None:
    async def read() -> None:
        budget = Budget(len(LARGE) * 3)
        holder = body(LARGE, budget, PATIENT_SECONDS)
        await holder.read(len(LARGE), None)
        too_much = asyncio.create_task(body(LARGE, budget, 0.05).read(len(LARGE) * 3, None))
        await asyncio.sleep(0)
        behind = asyncio.create_task(body(LARGE, budget, PATIENT_SECONDS).read(len(LARGE), None))
        with pytest.raises(Overloaded, match="Other large requests took all of the gateway's memory"):
            await too_much
        assert b"".join(await behind) == LARGE

    asyncio.run(read())
