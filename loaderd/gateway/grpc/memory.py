"""What large messages hold of the memory that the bodies of all doors share.

An HTTP body waits unread until there is room for it. gRPC reads a message before it says how large it is, so that one
which waits is in memory already: only so many may.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from loaderd.errors import Overloaded
from loaderd.gateway.body import BUDGET_BYTES, SMALL_BODY_BYTES, Budget
from loaderd.gateway.deadline import Deadline

MAX_WAITING_BYTES = BUDGET_BYTES // 2


class Memory:
    def __init__(self, budget: Budget, max_waiting_bytes: int = MAX_WAITING_BYTES) -> None:
        self._budget = budget
        self._max_waiting_bytes = max_waiting_bytes
        self._waiting_bytes = 0

    @contextlib.asynccontextmanager
    async def holding(self, message: bytes, deadline: Deadline) -> AsyncIterator[int]:
        """Counts the message while it is held; gives what it holds of the budget, 0 for a small one.

        Raises Overloaded when there is no room until the deadline, or too much waits for room already.
        """
        size = len(message)
        if size <= SMALL_BODY_BYTES:
            yield 0
            return
        await self._take(size, deadline)
        try:
            yield size
        finally:
            self._budget.give_back(size)

    async def _take(self, size_bytes: int, deadline: Deadline) -> None:
        refused = Overloaded("Other large requests take all of the gateway's memory; try again in a moment.")
        if self._waiting_bytes + size_bytes > self._max_waiting_bytes:
            raise refused
        self._waiting_bytes += size_bytes
        try:
            async with asyncio.timeout_at(deadline.at):
                await self._budget.take(size_bytes)
        except TimeoutError:
            raise refused from None
        finally:
            self._waiting_bytes -= size_bytes
