"""What a model process counted since it started; the supervisor turns it into increments."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from loaderd.histogram import bucket_of, empty


@dataclass(slots=True)
class Counters:
    """Cumulative, and touched by one thread.

    requests: answered predictions, those that failed in the model or for want of time included; refused
    ones (bad input, full queue, unloading) are not. items: inputs in them. latency_seconds: sum over
    requests, from arrival to answer; histogram: how they spread (loaderd.histogram). queue_seconds: sum over
    requests, from arrival to the first call. compute_seconds, batches: time in the model's predict and calls of it.
    last_at: unix time of the newest answer. started_at: unix time of the first moment that is counted; another one
    is another process.

    Not cumulative, highest since `to_message` was called last: max_queued, max_in_flight.
    """

    requests: int = 0
    items: int = 0
    errors: int = 0
    latency_seconds: float = 0.0
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0
    batches: int = 0
    last_at: float = 0.0
    last_error: str = ""
    histogram: list[int] = field(default_factory=empty)
    started_at: float = field(default_factory=time.time)
    max_queued: int = 0
    max_in_flight: int = 0

    def accepted(self, in_flight: int, queued: int) -> None:
        """A request came in. in_flight: with it; queued: those that wait before it or with it."""
        if in_flight > self.max_in_flight:
            self.max_in_flight = in_flight
        if queued > self.max_queued:
            self.max_queued = queued

    def answered(self, items: int, latency_seconds: float, queue_seconds: float, error: str = "") -> None:
        self.requests += 1
        self.items += items
        self.latency_seconds += latency_seconds
        self.histogram[bucket_of(latency_seconds)] += 1
        self.queue_seconds += queue_seconds
        self.last_at = time.time()
        if error:
            self.errors += 1
            self.last_error = error

    def computed(self, batches: int, compute_seconds: float) -> None:
        self.batches += batches
        self.compute_seconds += compute_seconds

    def to_message(self, in_flight: int, queued: int, busy_seconds: float) -> dict[str, Any]:
        """All of it with what is now; busy_seconds: the age of the model call that runs, 0.0 when none does."""
        message = {**asdict(self), "in_flight": in_flight, "queued": queued, "busy_seconds": round(busy_seconds, 6)}
        self.max_queued, self.max_in_flight = queued, in_flight
        return message
