"""Identical requests at the same time share one computation: the first asks the model, the others wait for it.

Only of models whose answers are kept: the key is the cache's, and without it there is none. Who asked first may go,
or run out of time; then another one of those that wait asks in its place.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from loaderd import wire
from loaderd.errors import LoaderdError, ModelTimeout, from_message
from loaderd.gateway.cache import Answer, Key
from loaderd.gateway.deadline import Deadline

Compute = Callable[[], Awaitable[wire.Message]]
_Waiting = tuple[Key, asyncio.Future[wire.Message | None]]


class Flights:
    """What is being computed now. By the digest of the key: those who wait, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, deque[_Waiting]] = {}

    def __len__(self) -> int:
        """The computations under way."""
        return len(self._waiting)

    async def answer(self, key: Key, deadline: Deadline, compute: Compute) -> tuple[wire.Message, bool]:
        """The answer, and whether it was computed for this request. Raises what compute raises, for this request or for
        the one that it shared, and ModelTimeout when the deadline ends the waiting."""
        waiting = self._waiting.get(key.digest)
        if waiting is not None:
            shared = await self._wait(waiting, key, deadline)
            if shared is not None:
                return shared, False
        else:
            self._waiting[key.digest] = deque()
        return await self._lead(key, compute), True

    async def _wait(self, waiting: deque[_Waiting], key: Key, deadline: Deadline) -> wire.Message | None:
        """The answer of who computes; None: it gave up, and this one is to compute."""
        future: asyncio.Future[wire.Message | None] = asyncio.get_running_loop().create_future()
        waiting.append((key, future))
        try:
            async with asyncio.timeout_at(deadline.at):
                return await future
        except BaseException as error:
            if future.done() and not future.cancelled() and future.exception() is None and future.result() is None:
                self._hand_over(key)  # it was to compute, and goes in the same moment
            if isinstance(error, TimeoutError):
                raise ModelTimeout(
                    f"The same request, asked before, gave no answer within {deadline.seconds:g} s; send fewer items at "
                    "once or raise PREDICT_TIMEOUT_SECONDS.",
                    timeout_seconds=deadline.seconds,
                ) from None
            raise

    async def _lead(self, key: Key, compute: Compute) -> wire.Message:
        try:
            message = await compute()
        except LoaderdError as error:
            if isinstance(error, ModelTimeout):
                self._hand_over(key)  # those who came later have time left
            else:
                self._fail(key, error)
            raise
        except BaseException:  # it was cancelled, or what befell it need not befall another
            self._hand_over(key)
            raise
        self._land(key, message)
        return message

    def _land(self, key: Key, message: wire.Message) -> None:
        waiting = self._waiting.pop(key.digest)
        answer = Answer.of(key, message) if waiting else None
        if answer is None:  # an answer for its own request only: the next one asks itself
            self._waiting[key.digest] = waiting
            self._hand_over(key)
            return
        for other, future in waiting:
            if not future.done():
                future.set_result(answer.message(other))

    def _fail(self, key: Key, error: LoaderdError) -> None:
        for _, future in self._waiting.pop(key.digest):
            if not future.done():
                future.set_exception(
                    from_message(error.to_message())
                )  # an exception of its own, with its own traceback

    def _hand_over(self, key: Key) -> None:
        """Lets the next one that still waits compute; without one the flight is over."""
        waiting = self._waiting[key.digest]
        while waiting:
            _, future = waiting.popleft()
            if not future.done():
                future.set_result(None)
                return
        del self._waiting[key.digest]
