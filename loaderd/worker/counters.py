"""What a model process counted since it started; the supervisor turns it into increments."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from loaderd.histogram import bucket_of, empty

EXACT_SIZES = 64


def size_class(batch_items: int) -> int:
    """The size that a call of so many items is counted under: itself, or beyond EXACT_SIZES the next power of two, so
    that they stay few."""
    return batch_items if batch_items <= EXACT_SIZES else 1 << (batch_items - 1).bit_length()


@dataclass(slots=True)
class Counters:
    """Cumulative, and touched by one thread.

    requests: answered predictions, those that failed in the model or for want of time included; refused
    ones (bad input, full queue, unloading) are not. items: inputs in them. latency_seconds: sum over
    requests, from arrival to answer; histogram: how they spread (loaderd.histogram). queue_seconds: sum over
    requests, from arrival to the first call. compute_seconds, batches: time in the model's predict and calls of it.
    errors: requests that failed; failed_items, failed_seconds: what of items and latency_seconds is theirs.
    input_seconds, infer_seconds, output_seconds: sums over requests, for reading and preparing them, in the calls that
    they were part of, and for writing their answers. sizes: how many calls of how many items there were, and their
    seconds.
    last_at: unix time of the newest answer. started_at: unix time of the first moment that is counted; another one
    is another process.

    Not cumulative, highest since `to_message` was called last: max_queued, max_in_flight.
    """

    requests: int = 0
    items: int = 0
    errors: int = 0
    failed_items: int = 0
    latency_seconds: float = 0.0
    failed_seconds: float = 0.0
    queue_seconds: float = 0.0
    input_seconds: float = 0.0
    infer_seconds: float = 0.0
    output_seconds: float = 0.0
    compute_seconds: float = 0.0
    batches: int = 0
    last_at: float = 0.0
    last_error: str = ""
    histogram: list[int] = field(default_factory=empty)
    sizes: dict[int, list[float]] = field(default_factory=dict)
    started_at: float = field(default_factory=time.time)
    max_queued: int = 0
    max_in_flight: int = 0

    def accepted(self, in_flight: int, queued: int) -> None:
        """A request came in. in_flight: with it; queued: those that wait before it or with it."""
        if in_flight > self.max_in_flight:
            self.max_in_flight = in_flight
        if queued > self.max_queued:
            self.max_queued = queued

    def answered(
        self,
        items: int,
        latency_seconds: float,
        queue_seconds: float,
        error: str = "",
        input_seconds: float = 0.0,
        infer_seconds: float = 0.0,
        output_seconds: float = 0.0,
    ) -> None:
        """A request has its answer; error: what it failed with."""
        self.requests += 1
        self.items += items
        self.latency_seconds += latency_seconds
        self.histogram[bucket_of(latency_seconds)] += 1
        self.queue_seconds += queue_seconds
        self.input_seconds += input_seconds
        self.infer_seconds += infer_seconds
        self.output_seconds += output_seconds
        self.last_at = time.time()
        if error:
            self.errors += 1
            self.failed_items += items
            self.failed_seconds += latency_seconds
            self.last_error = error

    def computed(self, batches: int, compute_seconds: float, batch_items: int = 0) -> None:
        """The model was called. batch_items: of the call, when it was one; 0: they are not known each by itself."""
        self.batches += batches
        self.compute_seconds += compute_seconds
        if batch_items and batches == 1:
            calls = self.sizes.setdefault(size_class(batch_items), [0, 0.0])
            calls[0] += 1
            calls[1] += compute_seconds

    def to_message(self, in_flight: int, queued: int, busy_seconds: float) -> dict[str, Any]:
        """All of it with what is now; busy_seconds: the age of the model call that runs, 0.0 when none does.

        sizes: [items, calls, seconds] of each, the smallest first."""
        message = {
            **asdict(self),
            "sizes": [[size, *calls] for size, calls in sorted(self.sizes.items())],
            "in_flight": in_flight,
            "queued": queued,
            "busy_seconds": round(busy_seconds, 6),
        }
        self.max_queued, self.max_in_flight = queued, in_flight
        return message
