"""Identical requests at the same time share one computation: the first asks the model, the others wait for it.

Only of models whose answers are kept: the key is the cache's. Who asked first may go, or run out of time; then another
one of those that wait asks in its place.

    key = cache.key(route, kind, head, pieces)
    if key is None:
        return await compute()
    return cache.get(key, loop.time()) or await flights.answer(key, route, deadline, compute)
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from loaderd import wire
from loaderd.errors import LoaderdError, ModelTimeout, from_message
from loaderd.gateway.cache import Answer, Cache, Key
from loaderd.gateway.deadline import Deadline
from loaderd.gateway.routes import Route

Compute = Callable[[], Awaitable[wire.Message]]
_Waiting = deque[tuple[Key, asyncio.Future[wire.Message | None]]]


class Flights:
    """What is being computed now. By the digest of the key: those who wait, in the order in which they came."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._waiting: dict[bytes, _Waiting] = {}

    def __len__(self) -> int:
        """The computations under way."""
        return len(self._waiting)

    async def answer(self, key: Key, route: Route, deadline: Deadline, compute: Compute) -> wire.Message:
        """The answer, which the cache keeps by the event loop's clock.

        Raises what compute raises, for this request or for the one that it shared, and ModelTimeout when the deadline
        ends the waiting for another one.
        """
        waiting = self._waiting.get(key.digest)
        if waiting is None:
            self._waiting[key.digest] = deque()
        else:
            shared = await self._wait(waiting, key, deadline)
            if shared is not None:
                self._cache.note_shared(route)
                return shared
        return await self._lead(key, route, compute)

    async def _wait(self, waiting: _Waiting, key: Key, deadline: Deadline) -> wire.Message | None:
        """The answer of who computes; None: it gave up, and this one is to compute."""
        future: asyncio.Future[wire.Message | None] = asyncio.get_running_loop().create_future()
        waiting.append((key, future))
        try:
            async with asyncio.timeout_at(deadline.at):
                return await future
        except (TimeoutError, asyncio.CancelledError) as end:
            if future.done() and not future.cancelled() and future.exception() is None and future.result() is None:
                self._hand_over(key)  # it was told to compute, and goes in the same moment
            if isinstance(end, asyncio.CancelledError):
                raise
            raise ModelTimeout(
                f"The same request, which was asked before, had no answer within {deadline.seconds:g} s; send fewer "
                "items at once or raise PREDICT_TIMEOUT_SECONDS.",
                timeout_seconds=deadline.seconds,
            ) from None

    async def _lead(self, key: Key, route: Route, compute: Compute) -> wire.Message:
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
        self._land(key, self._cache.put(key, route, message, asyncio.get_running_loop().time()))
        return message

    def _land(self, key: Key, answer: Answer | None) -> None:
        """None: the answer is for its own request only, so that all the others ask themselves."""
        for other, future in self._waiting.pop(key.digest, ()):
            if not future.done():
                future.set_result(None if answer is None else answer.message(other))

    def _fail(self, key: Key, error: LoaderdError) -> None:
        for _, future in self._waiting.pop(key.digest, ()):
            if not future.done():
                future.set_exception(from_message(error.to_message()))  # of its own, with a traceback of its own

    def _hand_over(self, key: Key) -> None:
        """Lets the next one that still waits compute; without one the flight is over."""
        waiting = self._waiting.get(key.digest, ())
        while waiting:
            _, future = waiting.popleft()
            if not future.done():
                future.set_result(None)
                return
        self._waiting.pop(key.digest, None)
