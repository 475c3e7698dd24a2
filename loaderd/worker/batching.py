"""Adaptive batching without waiting: while the model is busy requests queue; when free it takes what is there.

`choose` decides what goes into the next call; it knows no thread and no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loaderd.errors import LoaderdError

Arrays = dict[str, np.ndarray]


@dataclass(slots=True)
class Timings:
    """Where the time of a traced request went: compute_seconds in the calls that it was part of, of which the largest
    had batch_items."""

    compute_seconds: float = 0.0
    batch_items: int = 0

    def called(self, seconds: float, batch_items: int) -> None:
        self.compute_seconds += seconds
        self.batch_items = max(self.batch_items, batch_items)


@dataclass(slots=True, eq=False)
class Job:
    """One request on its way through the model.

    arrived_at, started_at: of the monotonic clock; started_at is when its first call began, None before. origin: whom
    to answer, for the door. abandoned: nobody waits any more. taken_items: how many items went into calls so far;
    parts: what came back. timings: None unless the request is traced.
    """

    inputs: Arrays
    items: int
    arrived_at: float
    render: Callable[[Arrays], Any]
    origin: Any = None
    started_at: float | None = None
    timings: Timings | None = None
    abandoned: bool = False
    taken_items: int = 0
    parts: list[Arrays] = field(default_factory=list)
    outputs: Arrays | None = None
    error: LoaderdError | None = None

    @property
    def remaining_items(self) -> int:
        return self.items - self.taken_items

    def fits_with(self, other: Job) -> bool:
        """Whether both can go into one call: all dimensions but the first are equal."""
        return all(array.shape[1:] == other.inputs[name].shape[1:] for name, array in self.inputs.items())


@dataclass(frozen=True, slots=True)
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
        if chosen and (job.remaining_items > room or not job.fits_with(first)):
            passed.append(job)
            continue
        taken = min(job.remaining_items, room)
        chosen.append(Slice(job, job.taken_items, job.taken_items + taken))
        job.taken_items += taken
        room -= taken
        if job.remaining_items:
            unfinished.append(job)
    waiting.extendleft(reversed(passed))
    waiting.extend(unfinished)
    return chosen


def joined(slices: Sequence[Slice]) -> Arrays:
    """The inputs of all slices in one batch."""
    if len(slices) == 1:
        return slices[0].inputs()
    parts = [part.inputs() for part in slices]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def handed_out(slices: Sequence[Slice], outputs: Arrays) -> None:
    """Gives each job its rows of the outputs; a job whose items are all done gets its `outputs`."""
    at = 0
    for part in slices:
        rows = {name: array[at : at + part.items] for name, array in outputs.items()}
        at += part.items
        job = part.job
        if part.items == job.items:
            job.outputs = rows
            continue
        job.parts.append(rows)
        if not job.remaining_items:
            job.outputs = {name: np.concatenate([done[name] for done in job.parts]) for name in outputs}
            job.parts.clear()
