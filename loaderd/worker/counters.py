"""What a model process counted since it started; the supervisor turns it into increments."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(slots=True)
class Counters:
    """Cumulative, and touched by one thread.

    requests: answered predictions, those that failed in the model or for want of time included; refused
    ones (bad input, full queue, unloading) are not. items: inputs in them. latency_seconds: sum over
    requests, from arrival to answer. compute_seconds, batches: time in the model's predict and calls of it.
    last_at: unix time of the newest answer.
    """

    requests: int = 0
    items: int = 0
    errors: int = 0
    latency_seconds: float = 0.0
    compute_seconds: float = 0.0
    batches: int = 0
    last_at: float = 0.0
    last_error: str = ""

    def answered(self, items: int, latency_seconds: float, error: str = "") -> None:
        self.requests += 1
        self.items += items
        self.latency_seconds += latency_seconds
        self.last_at = time.time()
        if error:
            self.errors += 1
            self.last_error = error

    def computed(self, batches: int, compute_seconds: float) -> None:
        self.batches += batches
        self.compute_seconds += compute_seconds

    def to_message(self, in_flight: int, queued: int) -> dict[str, Any]:
        return {**asdict(self), "in_flight": in_flight, "queued": queued}
