"""The queue before every load: its turn, then its memory, in order of priority and arrival. A load whose place in
memory is kept (its process died, or another model went for it) comes first: it takes nothing from those who wait.

One task looks at the queue, and only at its head, so no two loads are ever promised the same bytes and a large
model is not overtaken for ever by small ones.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from loaderd.errors import InsufficientMemory
from loaderd.rules import Rules
from loaderd.scheduler import Decision, Plan, Wish
from loaderd.supervisor.budget import Budget

log = logging.getLogger(__name__)

FRESH_SECONDS = 0.5  # measurements that are older are taken again before a decision
RETRY_SECONDS = 1.0

MakeWish = Callable[[], Wish]


@dataclass(slots=True, eq=False)
class _Ticket:
    """One load that waits. wish: made anew at each look, by what is known then. has_place: see Admission.admitted.
    waits_since: for memory."""

    model_id: str
    serial: int
    wish: MakeWish
    tell: Callable[[str], None]
    wait_seconds: float
    has_place: bool
    granted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    told: str = ""
    waits_since: float | None = None

    def say(self, waits_for: str) -> None:
        if waits_for != self.told and not self.granted.done():
            self.told = waits_for
            self.tell(waits_for)


class Admission:
    """Lets loads begin. `run()` is the one who decides."""

    def __init__(self, rules: Callable[[], Rules], admitted: Callable[[str], None]) -> None:
        self.budget: Budget
        self._rules = rules
        self._on_admitted = admitted
        self._queue: list[_Ticket] = []
        self._serials = itertools.count()
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Something came free or was decided: the queue is looked at again."""
        self._changed.set()

    @asynccontextmanager
    async def admitted(
        self,
        model_id: str,
        wish: MakeWish,
        tell: Callable[[str], None],
        wait_seconds: float,
        *,
        has_place: bool = False,
    ) -> AsyncIterator[None]:
        """Waits for a turn and for memory, and holds both for the length of the block.

        wait_seconds: how long, at the head of the queue, the memory is waited for. tell: called with what is waited
        for, whenever that changes. has_place: the budget keeps its place already. Raises InsufficientMemory with the
        plan as its facts.
        """
        ticket = _Ticket(model_id, next(self._serials), wish, tell, wait_seconds, has_place)
        self._queue.append(ticket)
        self.changed()
        try:
            await ticket.granted
            self._on_admitted(model_id)
            yield
        finally:
            with suppress(ValueError):
                self._queue.remove(ticket)
            self.budget.promised.pop(model_id, None)
            self.changed()

    async def run(self) -> None:
        """Decides, for as long as the daemon runs."""
        while True:
            self._changed.clear()
            try:
                look_again_seconds = await self._settle()
            except Exception:
                log.exception("the queue of loads could not be looked at; it is tried again")
                look_again_seconds = RETRY_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(look_again_seconds):
                    await self._changed.wait()

    async def _settle(self) -> float | None:
        """Admits or refuses from the head of the queue on; when to look again at the latest."""
        while (ticket := self._head()) is not None:
            under_way = len(self.budget.promised)
            if under_way >= max(1, self._rules().max_concurrent_loads):
                loads = "1 load is" if under_way == 1 else f"{under_way} loads are"
                for waiting in self._in_order():
                    waiting.say(f"waits for its turn: {loads} under way")
                return None
            await self.budget.look(FRESH_SECONDS)
            if ticket is not self._head():
                continue
            try:
                wish = ticket.wish()
                plan = self.budget.decide(wish)
            except Exception as unexpected:  # one that cannot be decided on does not hold up the others
                log.exception("nothing could be decided on the load of %s", ticket.model_id)
                self._end(ticket, unexpected)
                continue
            if plan.decision is Decision.EVICTS:
                await self._evict(ticket)
                continue  # who has to go is going now, so the next plan waits for it
            match plan.decision:
                case Decision.FITS:
                    self._queue.remove(ticket)
                    self.budget.promised[ticket.model_id] = wish
                    ticket.granted.set_result(None)
                case Decision.REFUSED:
                    self._refuse(ticket, plan, plan.sentence)
                case _:
                    now = time.monotonic()
                    ticket.waits_since = ticket.waits_since or now
                    left = ticket.waits_since + ticket.wait_seconds - now
                    if left <= 0:
                        waited = f"{ticket.model_id} waited {ticket.wait_seconds:g} s for memory: {plan.sentence}"
                        self._refuse(ticket, plan, waited)
                        continue
                    ticket.say(f"waits for memory: {self._what_is_waited_for(plan)}")
                    for waiting in self._in_order()[1:]:
                        waiting.say(f"waits for its turn: {ticket.model_id} is before it")
                    return left if plan.wait_seconds is None else min(left, max(plan.wait_seconds, 0.05))
        return None

    def _in_order(self) -> list[_Ticket]:
        # One that was cancelled a moment ago may still stand in the queue.
        return sorted(
            (ticket for ticket in self._queue if not ticket.granted.done()),
            key=lambda ticket: (
                not ticket.has_place,
                -self._rules().policy_of(ticket.model_id).priority,
                ticket.serial,
            ),
        )

    def _head(self) -> _Ticket | None:
        return next(iter(self._in_order()), None)

    def _what_is_waited_for(self, plan: Plan) -> str:
        going = self.budget.going
        if len(going) == 1:
            return f"{going[0]} is being unloaded"
        return f"{', '.join(going)} are being unloaded" if going else plan.sentence

    async def _evict(self, ticket: _Ticket) -> None:
        """Begins to unload those who have to go, unless one of them became busy: then the plan is another one."""
        victims = await self.budget.victims_now(lambda: self.budget.decide(ticket.wish()).victims)
        if ticket is self._head():
            for victim in victims:
                reason = f"evicted to make room for {ticket.model_id}: {victim.reason}"
                self.budget.let_go(victim.model_id, reason, "evicted")

    def _refuse(self, ticket: _Ticket, plan: Plan, message: str) -> None:
        self._end(ticket, InsufficientMemory(message, **plan.to_message()))

    def _end(self, ticket: _Ticket, error: Exception) -> None:
        with suppress(ValueError):
            self._queue.remove(ticket)
        if not ticket.granted.done():
            ticket.granted.set_exception(error)
