"""The way of a prediction through the gateway: what its name means, which process answers, what is noted of it.

Most requests need none of the exceptions (a model that is being restarted, a split, a trace, an answer to be kept, a
large body): `loaderd.gateway.quick` sends those on at once and writes the answer when it comes, without a task for
each.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from loaderd import wire
from loaderd.errors import LoaderdError, ModelProcessDied
from loaderd.gateway.access import Caller
from loaderd.gateway.deadline import Deadline
from loaderd.gateway.flights import Flights
from loaderd.gateway.links import Links, NotComputed, require_answer
from loaderd.gateway.lookup import Lookup
from loaderd.gateway.observing.course import Course
from loaderd.gateway.observing.observer import Observer
from loaderd.gateway.routes import Route, Split, Target
from loaderd.gateway.shadow import Shadow
from loaderd.gateway.supervisor import Supervisor
from loaderd.gateway.tally import Ledger
from loaderd.gateway.told import take_told
from loaderd.gateway.waiting import Waiting


@dataclass(slots=True)
class Ask:
    """One prediction on its way.

    head: for the model process (see wire), without "trace". pieces: the body. began: by time.perf_counter, when the
    request came. held_bytes: what its body holds of the budget for bodies. is_traced: None lets `Predictor` draw.
    course: what is told of it when it is over. others_seconds: how those were answered who went before, of a bulk
    request when it is answered.
    """

    name: str
    version: str | None
    kind: wire.Kind
    head: dict[str, Any]
    pieces: Sequence[bytes]
    caller: Caller
    deadline: Deadline
    began: float = field(default_factory=time.perf_counter)
    held_bytes: int = 0
    is_traced: bool | None = None
    course: Course | None = None
    others_seconds: float | None = None

    def encoded_head(self, **more: Any) -> bytes:
        head = {**self.head, **more} if more else self.head
        return orjson.dumps(head) if head else b""


@dataclass(slots=True)
class Predictor:
    """Answers predictions of all doors. timeout_seconds: of one prediction, from when its model is there."""

    links: Links
    supervisor: Supervisor
    ledger: Ledger
    timeout_seconds: float
    lookup: Lookup = field(init=False)
    waiting: Waiting = field(init=False)
    shadow: Shadow = field(init=False)
    flights: Flights = field(init=False)
    observer: Observer = field(init=False)

    def __post_init__(self) -> None:
        self.lookup = Lookup(self.supervisor)
        self.waiting = Waiting(self.supervisor, self.lookup)
        self.shadow = Shadow(self.links, self.ledger, self.timeout_seconds)
        self.flights = Flights(self.supervisor.cache)
        self.observer = Observer(self.supervisor)

    def picks(self) -> bool:
        """Whether the next prediction is to be traced."""
        return self.ledger.picks(self.supervisor.sampling_rate)

    async def require_hope(self, name: str, version: str | None) -> None:
        """Raises what an ask would at once: UnknownModel, ModelNotLoaded, Overloaded. To be called before a body is
        read."""
        route = (await self.lookup.find(name, version)).route
        if route.is_ready:
            self.links.to(route).require_room()
        else:
            self.waiting.require_hope(route)

    async def answer(self, ask: Ask) -> wire.Message:
        """The answer of the version that the name means by now. Raises LoaderdError.

        A request that a process refused because it was being unloaded, or that found none to connect to, was not
        computed: it is routed again, once.
        """
        answer = await self._answer(ask)
        course = ask.course
        if course is not None and ask.kind == wire.Kind.INFER and self.observer.tells_of(course):
            course.answered(answer.body, int(answer.head) if answer.head.isdigit() else None)
        return answer

    async def _answer(self, ask: Ask) -> wire.Message:
        is_traced = self.picks() if ask.is_traced is None else ask.is_traced
        was_refused = False
        while True:
            target = await self._ready(ask)
            route, role = _chosen(target)
            if ask.course is not None:
                ask.course.led_to(route, role)
            try:
                if target.split is None and not is_traced:
                    return await self._asked(ask, route)
                return await self._observed(ask, route, role, target.split, is_traced)
            except NotComputed as refused:
                if was_refused:
                    self.note_lost(route, ask.began, refused.error)
                    raise refused.error from None
                was_refused = True
                await self.waiting.until_told(route)
            except ModelProcessDied as lost:
                self.note_lost(route, ask.began, lost)
                raise

    async def _asked(self, ask: Ask, route: Route) -> wire.Message:
        """The model's answer, or one that was kept of the same request. Raises as a link does, and NotComputed."""
        cache = self.supervisor.cache
        key = cache.key(route, ask.kind, ask.head, ask.pieces) if route.keeps_answers else None
        if key is None:
            return await self._computed(ask, route)
        kept = cache.get(key, asyncio.get_running_loop().time())
        if kept is not None:
            if ask.course is not None:
                ask.course.kept = "hit"
            return kept
        answer = await self.flights.answer(key, route, ask.deadline, lambda: self._computed(ask, route))
        if ask.course is not None and ask.course.asked_at is None:
            ask.course.kept = "shared"
        return answer

    async def _computed(self, ask: Ask, route: Route) -> wire.Message:
        course = ask.course
        if course is None or course.decision is None:
            if course is not None:
                course.asked_at = time.perf_counter()
            message = await self.links.to(route).ask(ask.kind, ask.encoded_head(), ask.pieces, ask.deadline)
            if "bulk" in ask.head:
                ask.others_seconds = take_told(message).get("others_seconds")
        else:
            message, _ = await self._timed(ask, route)
        return require_answer(message)

    async def _timed(self, ask: Ask, route: Route) -> tuple[wire.Message, dict[str, Any]]:
        """The answer, or error, and where its time went: {} when the model did not get to it."""
        if ask.course is not None:
            ask.course.asked_at = time.perf_counter()
        message = await self.links.to(route).ask(ask.kind, ask.encoded_head(trace=True), ask.pieces, ask.deadline)
        told = take_told(message)
        ask.others_seconds = told.get("others_seconds")
        timings: dict[str, Any] = told.get("trace") or {}
        if ask.course is not None:
            ask.course.took(timings)
        return message, timings

    async def stream(self, ask: Ask) -> AsyncGenerator[wire.Message, None]:
        """The answer in parts: Kind.PART messages and, last, the ANSWER. Raises LoaderdError, at the first message or
        at a later one. Closing it tells the process that nobody waits any more."""
        was_refused = False
        while True:
            route, role = _chosen(await self._ready(ask))
            course = ask.course
            if course is not None:
                course.led_to(route, role)
                course.asked_at = time.perf_counter()
            link = self.links.to(route)
            has_begun = False
            is_timed = course is not None and course.decision is not None
            head = ask.encoded_head(trace=True) if is_timed else ask.encoded_head()
            messages = link.stream(ask.kind, head, ask.pieces, ask.deadline)
            try:
                async for message in messages:
                    if course is not None and course.first_part_at is None:
                        course.first_part_at = time.perf_counter()
                    if course is not None and message.head:
                        course.took(take_told(message).get("trace") or {})
                    yield require_answer(message)
                    has_begun = True
                return
            except NotComputed as refused:
                if was_refused or has_begun:
                    self.note_lost(route, ask.began, refused.error)
                    raise refused.error from None
                was_refused = True
                await self.waiting.until_told(route)
            except LoaderdError as error:
                if course is not None:  # it may come behind a status of 200
                    course.error_code = error.code
                self.note_lost(route, ask.began, error)
                raise
            finally:
                await messages.aclose()

    async def _ready(self, ask: Ask) -> Target:
        """What the name means, once that is ready."""
        target = await self.lookup.find(ask.name, ask.version)
        if not target.route.is_ready:
            target = await self.waiting.until_ready(ask.name, ask.version, ask.caller.user, ask.held_bytes)
            ask.deadline = Deadline.after(ask.deadline.seconds)
        return target

    def note_lost(self, route: Route, began: float, error: LoaderdError) -> None:
        """Counts an error that the model's process cannot count: it never had the request, or died with it."""
        if isinstance(error, ModelProcessDied):
            self.ledger.lost(route.model_id, time.perf_counter() - began, error.message)

    async def _observed(self, ask: Ask, route: Route, role: str, split: Split | None, is_traced: bool) -> wire.Message:
        """The answer, counted for its version of a split lineage, and traced."""
        began = time.perf_counter()
        answer: wire.Message | None = None
        failure: LoaderdError | None = None
        timings: dict[str, Any] = {}
        try:
            if is_traced:  # a kept answer would tell nothing of where the time goes
                message, timings = await self._timed(ask, route)
                answer = require_answer(message)
            else:
                answer = await self._asked(ask, route)
        except LoaderdError as error:
            failure = error
        now, status = time.perf_counter(), 200 if failure is None else failure.http_status
        if split is not None:
            tally = self.ledger.of(split)
            (tally.candidate if role == "candidate" else tally.live).add(now - began, status)
        if is_traced:
            self.ledger.trace(route, role, ask.caller.user, status, now - ask.began, timings)
        if failure is not None:
            raise failure
        assert answer is not None
        if split is not None and split.shadow and role == "live":
            # Behind whoever waits for the answer: the copy must not be in its way.
            asyncio.get_running_loop().call_soon(
                self.shadow.copy, split, ask.kind, ask.encoded_head(), ask.pieces, answer
            )
        return answer


def _chosen(target: Target) -> tuple[Route, str]:
    """The version that answers this request, and as what: "live", "candidate" or "direct"."""
    split = target.split
    if split is not None and split.percent > 0 and random.random() * 100 < split.percent:  # noqa: S311 - a share, no secret
        return split.candidate, "candidate"
    return target.route, "live" if target.by_lineage else "direct"
