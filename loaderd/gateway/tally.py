"""What the door saw of a lineage's two versions and of single predictions, told to the supervisor every few seconds."""

from __future__ import annotations

import random
import time
from dataclasses import asdict
from typing import Any

from loaderd import histogram
from loaderd.gateway.routes import Route, Split
from loaderd.protocol import Lost
from loaderd.reporter import Comparison, Trace

TRACES_PER_SECOND = 10


class Answers:
    """Answers of one version: predictions, those that failed in the model or for want of time included; refused ones
    (bad input, full queue) are not."""

    __slots__ = ("errors", "histogram", "latency_seconds", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        self.latency_seconds = 0.0
        self.histogram: list[int] = []

    def add(self, seconds: float, status: int) -> None:
        """Counts an answer with this HTTP status."""
        if 400 <= status < 500:
            return
        if not self.histogram:
            self.histogram = histogram.empty()
        self.requests += 1
        self.errors += status >= 500
        self.latency_seconds += seconds
        self.histogram[histogram.bucket_of(seconds)] += 1


class Tally:
    """The increments of one lineage's pair of versions since the last report."""

    __slots__ = ("candidate", "compared", "disagreed", "dropped", "live")

    def __init__(self) -> None:
        self.live = Answers()
        self.candidate = Answers()
        self.compared = 0
        self.disagreed = 0
        self.dropped = 0


class Ledger:
    """Everything that is counted between two reports. shadow_dropped: of the gateway's whole life."""

    def __init__(self) -> None:
        self.shadow_dropped = 0
        self._tallies: dict[tuple[str, str, str], Tally] = {}
        self._lost: dict[str, tuple[Answers, str]] = {}  # by model_id, with the last error
        self._traces: list[Trace] = []
        self._traces_left = float(TRACES_PER_SECOND)
        self._refilled_at = time.monotonic()

    def of(self, split: Split) -> Tally:
        key = split.lineage, split.live.model_id, split.candidate.model_id
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._tallies[key] = Tally()
        return tally

    def drop(self, split: Split) -> None:
        """A copy was not sent, because too many were under way."""
        self.of(split).dropped += 1
        self.shadow_dropped += 1

    def lost(self, model_id: str, seconds: float, error: str) -> None:
        """A request ended in an error of the connection to its model's process, after so long."""
        answers = self._lost.get(model_id, (Answers(), ""))[0]
        answers.add(seconds, 503)
        self._lost[model_id] = answers, error

    def picks(self, sampling_rate: float) -> bool:
        """Whether this prediction is to be traced: a random share of them, at most some a second."""
        if random.random() >= sampling_rate:  # noqa: S311 - a share, no secret
            return False
        now = time.monotonic()
        elapsed, self._refilled_at = now - self._refilled_at, now
        self._traces_left = min(TRACES_PER_SECOND, self._traces_left + elapsed * TRACES_PER_SECOND)
        if self._traces_left < 1:
            return False
        self._traces_left -= 1
        return True

    def trace(
        self, route: Route, role: str, user: str, status: int, total_seconds: float, timings: dict[str, Any]
    ) -> None:
        """Keeps a traced prediction. timings: what the model process told; {} when it did not get to it."""
        self._traces.append(
            Trace(
                model_id=route.model_id,
                at=time.time(),
                status=status,
                total_seconds=total_seconds,
                queue_seconds=timings.get("queue_seconds"),
                compute_seconds=timings.get("compute_seconds"),
                items=timings.get("items") or 0,
                batch_items=timings.get("batch_items"),
                user=user,
                route=role,
            )
        )

    def take(self) -> dict[str, Any] | None:
        """The message for the supervisor, which empties the ledger; None when there is nothing to tell."""
        if not self._tallies and not self._traces and not self._lost:
            return None
        tallies, self._tallies = self._tallies, {}
        traces, self._traces = self._traces, []
        lost, self._lost = self._lost, {}
        now = time.time()
        return {
            "event": "seen",
            "comparisons": [asdict(_comparison(*key, now, tally)) for key, tally in tallies.items()],
            "traces": [asdict(trace) for trace in traces],
            "lost": [
                asdict(
                    Lost(
                        model_id=model_id,
                        at=now,
                        requests=answers.requests,
                        latency_seconds=answers.latency_seconds,
                        histogram=answers.histogram,
                        error=error,
                    )
                )
                for model_id, (answers, error) in lost.items()
            ],
        }


def _comparison(lineage: str, live: str, candidate: str, at: float, tally: Tally) -> Comparison:
    return Comparison(
        lineage=lineage,
        live=live,
        candidate=candidate,
        at=at,
        compared=tally.compared,
        disagreed=tally.disagreed,
        dropped=tally.dropped,
        live_requests=tally.live.requests,
        live_errors=tally.live.errors,
        live_latency_seconds=tally.live.latency_seconds,
        live_histogram=tally.live.histogram,
        candidate_requests=tally.candidate.requests,
        candidate_errors=tally.candidate.errors,
        candidate_latency_seconds=tally.candidate.latency_seconds,
        candidate_histogram=tally.candidate.histogram,
    )
