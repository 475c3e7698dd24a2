"""Identical requests at the same time: one computes, the others get its answer or error, and nobody is forgotten."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from loaderd import wire
from loaderd.errors import LoaderdError, ModelTimeout, Overloaded
from loaderd.gateway.cache import Cache, Key
from loaderd.gateway.deadline import Deadline
from loaderd.gateway.flights import Flights
from loaderd.gateway.routes import Route, Routes

TABLE = Routes.from_message(
    {"a": {"lineage": "a", "version": "1", "state": "loaded", "sockets": ["s"], "load": "1", "cache_ttl_seconds": 10.0}}
)
ROUTE: Route = TABLE.models["a"]


class Model:
    """Computes when the test says so: each call takes the next of what `ends` is told."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.flights = Flights(cache)
        self.calls = 0
        self._ends: asyncio.Queue[wire.Message | BaseException] = asyncio.Queue()

    def end(self, outcome: bytes | BaseException) -> None:
        self._ends.put_nowait(
            wire.Message(0, wire.Kind.ANSWER, b"", outcome) if isinstance(outcome, bytes) else outcome
        )

    async def compute(self) -> wire.Message:
        self.calls += 1
        outcome = await self._ends.get()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def ask(self, body: bytes = b"body", seconds: float = 20.0) -> asyncio.Task[bytes]:
        key = self.key(body)
        return asyncio.ensure_future(self._ask(key, seconds))

    async def _ask(self, key: Key, seconds: float) -> bytes:
        return bytes((await self.flights.answer(key, ROUTE, Deadline.after(seconds), self.compute)).body)

    def key(self, body: bytes) -> Key:
        key = self.cache.key(ROUTE, wire.Kind.INFER, {"name": "a", "header_bytes": None}, [body])
        assert key is not None
        return key


def run(story: Callable[[Model], Coroutine[Any, Any, None]]) -> None:
    """Tells a story with a fresh model; afterwards no computation may be left."""

    async def told() -> None:
        cache = Cache()
        cache.follow(TABLE)
        model = Model(cache)
        async with asyncio.timeout(20):
            await story(model)
        assert len(model.flights) == 0

    asyncio.run(told())


async def turns(count: int = 5) -> None:
    """Lets everything run that can."""
    for _ in range(count):
        await asyncio.sleep(0)


def test_many_share_one_computation_and_the_cache_keeps_it() -> None:
    async def story(model: Model) -> None:
        tasks = [model.ask() for _ in range(50)]
        await turns()
        model.end(b"answer")
        assert set(await asyncio.gather(*tasks)) == {b"answer"}
        figures = model.cache.figures("a")
        assert (model.calls, figures.misses, figures.shared, figures.entries) == (1, 1, 49, 1)

    run(story)


def test_other_requests_are_computed_beside_it() -> None:
    async def story(model: Model) -> None:
        one, other = model.ask(b"1"), model.ask(b"2")
        await turns()
        assert (model.calls, len(model.flights)) == (2, 2)
        model.end(b"answer")
        model.end(b"answer")
        await asyncio.gather(one, other)

    run(story)


def test_each_gets_its_own_id() -> None:
    async def story(model: Model) -> None:
        tasks = [model.ask(b'{"id":"%d","inputs":[]}' % number) for number in range(3)]
        await turns()
        model.end(b'{"outputs":[],"id":"0"}')
        assert await asyncio.gather(*tasks) == [b'{"outputs":[],"id":"%d"}' % number for number in range(3)]
        assert model.calls == 1

    run(story)


def test_an_answer_that_is_for_its_own_request_only_leaves_the_others_to_ask_themselves() -> None:
    async def story(model: Model) -> None:
        tasks = [model.ask(b'{"id":"%d","inputs":[]}' % number) for number in range(3)]
        await turns()
        for _ in range(3):
            model.end(b"without any id")
        assert set(await asyncio.gather(*tasks)) == {b"without any id"}
        assert model.calls == 3

    run(story)


def test_an_error_is_everybodys() -> None:
    async def story(model: Model) -> None:
        tasks = [model.ask() for _ in range(3)]
        await turns()
        model.end(Overloaded("full", model_id="a", queued=3))
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(error) for error in errors] == [Overloaded] * 3
        assert len({id(error) for error in errors}) == 3, "each has a traceback of its own"
        assert isinstance(errors[2], Overloaded)
        assert errors[2].facts == {"model_id": "a", "queued": 3}
        assert (model.calls, model.cache.used_bytes) == (1, 0)

    run(story)


@pytest.mark.parametrize("why", ["gone", "its time is over", "something unexpected"])
def test_who_gives_up_hands_over(why: str) -> None:
    async def story(model: Model) -> None:
        first, second, third = (model.ask() for _ in range(3))
        await turns()
        if why == "gone":
            first.cancel()
        else:
            model.end(ModelTimeout("late") if why == "its time is over" else ValueError("odd"))
        await asyncio.gather(first, return_exceptions=True)
        await turns()
        assert (model.calls, second.done(), third.done()) == (2, False, False)
        model.end(b"answer")
        assert set(await asyncio.gather(second, third)) == {b"answer"}

    run(story)


def test_who_left_is_passed_over() -> None:
    async def story(model: Model) -> None:
        first, second, third = (model.ask() for _ in range(3))
        await turns()
        second.cancel()
        await turns()
        first.cancel()
        await turns()
        model.end(b"answer")
        assert await third == b"answer"
        assert model.calls == 2

    run(story)


def test_who_goes_in_the_moment_in_which_it_is_to_compute_hands_on() -> None:
    async def story(model: Model) -> None:
        first, second, third = (model.ask() for _ in range(3))
        await turns()
        first.cancel()
        await asyncio.sleep(0)  # the second was told, and did not run yet
        second.cancel()
        await turns()
        model.end(b"answer")
        assert await third == b"answer"

    run(story)


def test_waiting_ends_at_the_deadline_of_who_waits() -> None:
    async def story(model: Model) -> None:
        first = model.ask()
        await turns()
        with pytest.raises(ModelTimeout, match=r"no answer within 0.01 s"):
            await model.ask(seconds=0.01)
        model.end(b"answer")
        assert await first == b"answer"

    run(story)


def test_whatever_happens_nobody_waits_for_ever_and_nothing_is_left() -> None:
    """Random courses: askers that come and go, computations that end in every way."""
    for seed in range(200):
        rng = random.Random(seed)

        async def story(model: Model, rng: random.Random = rng) -> None:
            tasks: list[asyncio.Task[bytes]] = []
            for _ in range(40):
                match rng.randrange(4):
                    case 0 | 1:
                        tasks.append(model.ask(b"%d" % rng.randrange(2)))
                    case 2 if tasks:
                        rng.choice(tasks).cancel()
                    case _:
                        ends: list[bytes | BaseException] = [b"x", Overloaded("x"), ModelTimeout("x"), ValueError("x")]
                        model.end(rng.choice(ends))
                await turns(rng.randrange(3))
            while not all(task.done() for task in tasks):
                model.end(b"x")
                await turns()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                assert outcome == b"x" or isinstance(outcome, LoaderdError | ValueError | asyncio.CancelledError)

        run(story)
