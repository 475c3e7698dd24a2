"""Adaptive batching without a delay: while the model is busy requests queue; when free it takes what is there.

`choose` decides what goes into the next call, `Line` whose turn it is, `Return` whether those who were just answered
are coming back; they know no thread and no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np

from loaderd.errors import LoaderdError

Arrays = dict[str, np.ndarray]

BULK_CALL_SECONDS = 0.02
"""How long a call of bulk work may take: an interactive request that comes meanwhile waits for no more than that.

Where that is less than twice what a call costs whatever is in it, it may take twice that: by calls of single items the
work would take many times as long, and nobody would wait much less."""

BULK_CALLS_ALIKE = 16
"""After so many calls of bulk work of one size one of twice that size is tried: it may cost hardly more."""

BULK_PATIENCE_SECONDS = 1.0
"""Bulk work that has waited this long gets one call, however many interactive requests there are."""


RETURN_SHARE = 0.05
RETURN_MOST_SECONDS = 0.01
"""Who has an answer often asks again at once. After a call the next one begins when as many are there again, or this
share of that call's time later: with the first of them alone it would cost far more for each."""

RETURN_GAP_SHARE = 0.025
RETURN_GAP_SECONDS = (0.001, 0.005)
"""It begins as soon as none has come for this share of the last call's time, within these bounds, behind the first."""

RETURN_LEAST_SECONDS = 0.0005
"""Less is not waited: waiting itself costs about so much."""


class Rank(IntEnum):
    """Whose turn comes first."""

    URGENT = 0
    INTERACTIVE = 1
    BULK = 2


@dataclass(slots=True)
class Timings:
    """Where the time of a request went: compute_seconds in the calls that it was part of, of which the largest
    had batch_items."""

    compute_seconds: float = 0.0
    batch_items: int = 0

    def called(self, seconds: float, batch_items: int) -> None:
        self.compute_seconds += seconds
        self.batch_items = max(self.batch_items, batch_items)


@dataclass(slots=True, eq=False)
class Job:
    """One request on its way through the model.

    arrived_at, started_at: by time.perf_counter; started_at is when its first call began, None before. deadline: by
    the same clock; a job that has not begun by then is not computed any more. origin: whom to answer, for the door.
    is_traced: the answer tells where its time went; wants_usage: and how many tokens there were; wants_others: and how
    those are answered who go first. abandoned: nobody waits any more. input_seconds: it took to read and prepare.
    taken_items: how many items went into calls so far; parts: what came back.
    """

    inputs: Arrays
    items: int
    arrived_at: float
    render: Callable[[Arrays], Any]
    origin: Any = None
    rank: Rank = Rank.INTERACTIVE
    deadline: float = float("inf")
    is_traced: bool = False
    wants_usage: bool = False
    wants_others: bool = False
    input_seconds: float = 0.0
    started_at: float | None = None
    timings: Timings = field(default_factory=Timings)
    abandoned: bool = False
    taken_items: int = 0
    parts: list[Arrays] = field(default_factory=list)
    outputs: Arrays | None = None
    error: LoaderdError | None = None

    @property
    def remaining_items(self) -> int:
        return self.items - self.taken_items

    @property
    def is_over(self) -> bool:
        """Whether it has its answer, or an error in place of it."""
        return self.outputs is not None or self.error is not None

    def abandon(self) -> None:
        """Nobody waits any more. Its memory is given back at once, not when its turn would have come: another thread
        may still take it into a call, so that arrays of the same shapes take the place of its inputs."""
        self.abandoned = True
        self.render = _not_rendered
        self.inputs = {name: _hollow(array) for name, array in self.inputs.items()}

    def fits_with(self, other: Job) -> bool:
        """Whether both can go into one call: all dimensions but the first are equal."""
        theirs = other.inputs
        for name, array in self.inputs.items():  # noqa: SIM110 - a generator would cost more than the comparison
            if array.shape[1:] != theirs[name].shape[1:]:
                return False
        return True


def _hollow(array: np.ndarray) -> np.ndarray:
    """An array of the same shape and datatype, read-only, that takes no memory: one element of it, everywhere."""
    if not array.size:
        return array
    element = np.empty(1, array.dtype)
    first = array.flat[0]
    element[0] = first[:1] if isinstance(first, str | bytes | list) else first
    return np.broadcast_to(element, array.shape)


def _not_rendered(outputs: Arrays) -> Any:
    raise AssertionError("the answer of an abandoned job is written for nobody")


@dataclass(slots=True)
class Slice:
    """Items `start` to `stop` of a job."""

    job: Job
    start: int
    stop: int

    @property
    def items(self) -> int:
        return self.stop - self.start

    def inputs(self) -> Arrays:
        if self.items == self.job.items:
            return self.job.inputs
        return {name: array[self.start : self.stop] for name, array in self.job.inputs.items()}


def choose(waiting: deque[Job], max_items: int) -> list[Slice]:
    """Takes the next call's items out of `waiting`: the oldest job, then every one that fits beside it.

    A job larger than a call gives as much as fits and goes to the end of the line with the rest, so that
    it does not hold up the others. Jobs that are not chosen keep their order.
    """
    first = waiting[0]
    chosen: list[Slice] = []
    room = max_items
    passed: list[Job] = []
    unfinished: list[Job] = []
    while waiting and room:
        job = waiting.popleft()
        remaining = job.items - job.taken_items
        if chosen and (remaining > room or not job.fits_with(first)):
            passed.append(job)
            continue
        taken = min(remaining, room)
        chosen.append(Slice(job, job.taken_items, job.taken_items + taken))
        job.taken_items += taken
        room -= taken
        if taken < remaining:
            unfinished.append(job)
    if passed:
        waiting.extendleft(reversed(passed))
    if unfinished:
        waiting.extend(unfinished)
    return chosen


def joined(slices: Sequence[Slice]) -> Arrays:
    """The inputs of all slices in one batch."""
    if len(slices) == 1:
        return slices[0].inputs()
    parts = [part.inputs() for part in slices]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def handed_out(slices: Sequence[Slice], outputs: Arrays) -> None:
    """Gives each job its rows of the outputs; a job whose items are all done gets its `outputs`.

    When it raises no job got any: the parts of one do not go together, or an output has no rows.
    """
    if len(slices) == 1 and slices[0].items == slices[0].job.items:
        slices[0].job.outputs = outputs
        return
    at = 0
    each: list[Arrays] = []
    for part in slices:
        end = at + part.stop - part.start
        rows = {name: array[at:end] for name, array in outputs.items()}
        at = end
        parts = part.job.parts
        if parts and not part.job.remaining_items:
            rows = {name: np.concatenate([*(done[name] for done in parts), rows[name]]) for name in outputs}
        each.append(rows)
    for part, rows in zip(slices, each, strict=True):
        job = part.job
        if job.remaining_items:
            job.parts.append(rows)
        else:
            job.outputs = rows
            if job.parts:
                job.parts = []


class CallCost:
    """What calls cost of late: so much whatever is in them, and so much for each item; a line through the newest calls,
    older ones counting less and less."""

    _KEPT = 0.9  # of each call's weight when the next one comes
    _SPREAD = 0.001  # of the sizes' mean square: calls that differ less say nothing of the cost of an item

    def __init__(self) -> None:
        self._weight = self._items = self._seconds = self._items_squared = self._items_seconds = 0.0

    def add(self, items: int, seconds: float) -> None:
        kept = self._KEPT
        self._weight = kept * self._weight + 1.0
        self._items = kept * self._items + items
        self._seconds = kept * self._seconds + seconds
        self._items_squared = kept * self._items_squared + items * items
        self._items_seconds = kept * self._items_seconds + items * seconds

    def seconds_of(self, items: int) -> float:
        """What a call of so many items will take, as a share of the newest calls or more; infinite before the first."""
        if not self._weight:
            return float("inf")
        mean_items, seconds = self._items / self._weight, self._seconds / self._weight
        return seconds * max(1.0, items / mean_items)

    def items_within(self, at_least_seconds: float) -> tuple[float, bool]:
        """(how many items may go into one call, whether that is known).

        The call may take so many seconds, or twice its fixed cost if that is more. While all calls were of one size all
        of their cost is taken as the items'. Before the first call any number may.
        """
        if not self._weight:
            return float("inf"), False
        items, seconds = self._items / self._weight, self._seconds / self._weight
        spread = self._items_squared / self._weight - items * items
        if spread <= self._SPREAD * items * items:
            return (at_least_seconds * items / seconds if seconds > 0.0 else float("inf")), False
        per_item = (self._items_seconds / self._weight - items * seconds) / spread
        if per_item <= 0.0:
            return float("inf"), True
        fixed = max(0.0, seconds - per_item * items)
        return (max(at_least_seconds, 2.0 * fixed) - fixed) / per_item, True


class Line:
    """The jobs that wait for a call, by rank.

    Those of the first rank that has any are called together. Bulk work gets its turn when nobody else waits, or when
    it has waited long enough, and then only as many items as BULK_CALL_SECONDS allow, and at most
    twice as many as in its last call.
    """

    def __init__(self, max_items: int) -> None:
        self._max_items = max_items
        self._waiting: dict[Rank, deque[Job]] = {rank: deque() for rank in Rank}
        self._cost = CallCost()
        self._bulk_items = 0  # of the last call of bulk work that had as many as it was allowed
        self._bulk_alike = 0  # such calls of that size in a row
        self._bulk_since = float("inf")  # when bulk work had its last call, or began to wait

    def __bool__(self) -> bool:
        return any(self._waiting.values())

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def interactive_items(self) -> int:
        """How many items of interactive requests wait for a call; 0 while somebody urgent waits, or bulk work: they
        would wait with them."""
        waiting = self._waiting
        if waiting[Rank.URGENT] or waiting[Rank.BULK]:
            return 0
        return sum(job.remaining_items for job in waiting[Rank.INTERACTIVE])

    def add(self, job: Job) -> None:
        waiting = self._waiting[job.rank]
        if job.rank is Rank.BULK and not waiting:
            self._bulk_since = job.arrived_at
        waiting.append(job)

    def drop(self, is_over: Callable[[Job], bool]) -> list[Job]:
        """Takes out the jobs that are over before they began."""
        dropped: list[Job] = []
        for rank, waiting in self._waiting.items():
            over = [job for job in waiting if is_over(job)]
            if over:
                dropped += over
                gone = set(map(id, over))
                self._waiting[rank] = deque(job for job in waiting if id(job) not in gone)
        return dropped

    def take(self, now: float) -> list[Slice]:
        """The next call; [] when nobody waits. now: by time.perf_counter."""
        bulk = self._waiting[Rank.BULK]
        if bulk and now - self._bulk_since >= BULK_PATIENCE_SECONDS:
            return self._take_bulk(bulk, now)
        for rank in (Rank.URGENT, Rank.INTERACTIVE):
            if self._waiting[rank]:
                return choose(self._waiting[rank], self._max_items)
        return self._take_bulk(bulk, now) if bulk else []

    def _take_bulk(self, bulk: deque[Job], now: float) -> list[Slice]:
        self._bulk_since = now
        most = self._bulk_room()
        taken = choose(bulk, most)
        if items_of(taken) == most:
            self._bulk_alike = self._bulk_alike + 1 if most == self._bulk_items else 1
            self._bulk_items = most
        return taken

    def _bulk_room(self) -> int:
        """How many items of bulk work may go into the next call."""
        room, is_known = self._cost.items_within(BULK_CALL_SECONDS)
        if self._bulk_items:
            doubled = 2 * self._bulk_items
            room = min(room, doubled)
            if room < self._bulk_items + 1 and (self._bulk_alike >= BULK_CALLS_ALIKE or not is_known):
                room = doubled
        return max(1, int(min(room, self._max_items)))

    def expected_seconds(self, items: int) -> float:
        """What a call of so many items will take at most, by the newest calls; infinite before the first."""
        return self._cost.seconds_of(items)

    def called(self, items: int, seconds: float) -> None:
        """A call of so many items took so long."""
        self._cost.add(items, seconds)


class Return:
    """Whether the next call should wait a moment for those whom the last one answered.

    is_expected: they may be coming back. Not after a request that was alone and while which nobody came: a lone client
    never waits; nor where calls are short.
    """

    def __init__(self, max_items: int) -> None:
        self.is_expected = False
        self._max_items = max_items
        self._requests = self._items = 0  # that the last call answered
        self._awaited_items = self._early_items = 0
        self._until = self._gap = 0.0

    def answered(self, call: Sequence[Slice], seconds: float, now: float) -> None:
        """A call that took so long has ended now; whose requests are answered with it is coming back perhaps."""
        share = min(seconds * RETURN_SHARE, RETURN_MOST_SECONDS)
        self.is_expected, self._awaited_items = False, 0
        if share < RETURN_LEAST_SECONDS:
            return
        back = [
            part for part in call if part.job.rank is Rank.INTERACTIVE and part.job.is_over and not part.job.abandoned
        ]
        if back:
            self.is_expected = True
            self._requests, self._items = len(back), items_of(back)
            least, most = RETURN_GAP_SECONDS
            self._until, self._gap = now + share, min(most, max(least, seconds * RETURN_GAP_SHARE))

    def begins(self, waiting_items: int) -> None:
        """So many came while the last call was made: those that it answered would be computed with them."""
        self._early_items = waiting_items
        self._awaited_items = min(self._max_items, self._items + waiting_items)
        self.is_expected = self._requests > 1 or waiting_items > 0

    def worth_waiting(self, waiting_items: int, now: float) -> float:
        """Seconds in which another one must come, while so many items wait; 0.0: the call should begin."""
        if not waiting_items or waiting_items >= self._awaited_items:
            return 0.0
        left = self._until - now
        return max(0.0, left if waiting_items <= self._early_items else min(self._gap, left))


def items_of(slices: Iterable[Slice]) -> int:
    return sum(part.stop - part.start for part in slices)
