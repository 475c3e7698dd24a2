"""What loaderd reported and Postgres does not have yet: nothing is lost while Postgres is away, or counted twice."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from django.db import InterfaceError, OperationalError, connection, transaction

from loaderd.errors import ShuttingDown
from loaderd.reporter import (
    AlertReport,
    AliasMoved,
    Comparison,
    HealthReport,
    Heartbeat,
    OperationEnded,
    OperationProgress,
    Report,
    Sample,
    StateReport,
    Trace,
    Usage,
)
from modelhub.lifecycle.alias_moves import end_splits, record_moves
from modelhub.lifecycle.observations import record_health, record_heartbeat, record_stop, record_usage
from modelhub.lifecycle.recording import lock_versions, record_ended, record_progress, record_states
from modelhub.telemetry.recording import record_alerts, record_comparisons, record_samples, record_traces, summed

# Progress, heartbeats and counters wait this long for company, so that a short load has the writer to itself.
LINGER_SECONDS = 0.05
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 2.0
# What cannot be added up is kept up to here while Postgres is away: some hours of twelve models, about 20 MB.
MAX_SAMPLES = 20_000
MAX_TRACES = 10_000

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stopped:
    """loaderd stops, and nothing follows."""

    at: float


Event = StateReport | AliasMoved | AlertReport | OperationEnded | Stopped
Pair = tuple[str, str, str]


@dataclass(slots=True)
class Batch:
    """Reports that are written in one transaction.

    events: all, in order. progress, usage, comparisons: merged, one an operation, model, or lineage with its two
    versions. health, heartbeat: the newest. samples, traces: the newest so many; dropped counts the older ones.
    """

    events: list[Event] = field(default_factory=list)
    progress: dict[str, OperationProgress] = field(default_factory=dict)
    usage: dict[str, Usage] = field(default_factory=dict)
    health: dict[str, HealthReport] = field(default_factory=dict)
    comparisons: dict[Pair, Comparison] = field(default_factory=dict)
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=MAX_SAMPLES))
    traces: deque[Trace] = field(default_factory=lambda: deque(maxlen=MAX_TRACES))
    heartbeat: Heartbeat | None = None
    dropped: int = 0

    def __bool__(self) -> bool:
        return bool(self.events) or self.has_telemetry

    @property
    def has_telemetry(self) -> bool:
        kept = (self.progress, self.usage, self.health, self.comparisons, self.samples, self.traces, self.heartbeat)
        return any(kept)

    def add(self, report: Report | Stopped) -> None:
        match report:
            case OperationProgress():
                self.progress[report.operation_id] = report
            case Usage():
                self.usage[report.model_id] = _sum(self.usage.get(report.model_id), report)
            case HealthReport():
                self.health[report.model_id] = report
            case Comparison():
                pair = (report.lineage, report.live, report.candidate)
                before = self.comparisons.get(pair)
                self.comparisons[pair] = report if before is None else summed(before, report)
            case Sample():
                self.dropped += len(self.samples) == MAX_SAMPLES
                self.samples.append(report)
            case Trace():
                self.dropped += len(self.traces) == MAX_TRACES
                self.traces.append(report)
            case Heartbeat():
                self.heartbeat = report
            case _:
                self.events.append(report)
                if isinstance(report, OperationEnded):
                    self.progress.pop(report.operation_id, None)
                elif isinstance(report, StateReport) and not report.is_no_move:
                    # What a check found before a move is not true after it.
                    self.health.pop(report.model_id, None)
                    counted = self.usage.get(report.model_id)
                    if report.error is not None and counted is not None:
                        # Written behind the states: an older request's error would take the place of this one.
                        self.usage[report.model_id] = replace(counted, last_error="")

    def add_newer(self, newer: Batch) -> None:
        """Puts `newer` behind what is here."""
        for report in newer.reports():
            self.add(report)
        self.dropped += newer.dropped

    def reports(self) -> Iterator[Report | Stopped]:
        """All that is in it; events first, in order."""
        yield from self.events
        for merged in (self.progress, self.usage, self.health, self.comparisons):
            yield from merged.values()
        yield from self.samples
        yield from self.traces
        if self.heartbeat is not None:
            yield self.heartbeat

    def parts(self) -> Iterator[Batch]:
        """One batch for each report, in the order of reports()."""
        for report in self.reports():
            part = Batch()
            part.add(report)
            yield part

    def write(self) -> None:
        """To be called in a transaction. Versions are written before operations, as everywhere."""
        unwished: set[int] = set()
        # In their order: which version is the first of its lineage depends on it.
        moves = [event for event in self.events if isinstance(event, StateReport | AliasMoved)]
        self._lock_versions()
        for kind, run in groupby(moves, type):
            record: Callable[[list[Any], set[int]], None] = record_states if kind is StateReport else record_moves
            record(list(run), unwished)
        record_usage(list(self.usage.values()))
        if self.heartbeat is not None:
            record_heartbeat(self.heartbeat)
        record_health(list(self.health.values()))
        record_alerts([event for event in self.events if isinstance(event, AlertReport)])
        record_samples(self.samples)
        record_comparisons(list(self.comparisons.values()))
        record_traces(self.traces)
        record_ended([event for event in self.events if isinstance(event, OperationEnded)], unwished)
        record_progress(self.progress.values())
        end_splits([event for event in self.events if isinstance(event, AliasMoved | StateReport)])
        for event in self.events:
            if isinstance(event, Stopped):
                record_stop(event.at)

    def _lock_versions(self) -> None:
        """All at once and in one order, before any is written: people lock one, and then wait for a lineage."""
        names = {event.model_id for event in self.events if isinstance(event, StateReport | AliasMoved)}
        names |= self.usage.keys() | self.health.keys()
        if self.heartbeat is not None:
            names |= self.heartbeat.runtimes.keys()
        if names:
            lock_versions(names)


def _sum(before: Usage | None, added: Usage) -> Usage:
    if before is None:
        return added
    return replace(
        added,
        requests=before.requests + added.requests,
        items=before.items + added.items,
        errors=before.errors + added.errors,
        latency_seconds=before.latency_seconds + added.latency_seconds,
        last_at=max(before.last_at, added.last_at),
        last_error=added.last_error or before.last_error,
        cache_hits=before.cache_hits + added.cache_hits,
        cache_misses=before.cache_misses + added.cache_misses,
    )


class Outbox:
    """`put()` from any thread, without waiting; one thread with its own connection writes."""

    def __init__(self) -> None:
        self._pending = Batch()
        self._changed = threading.Condition()
        self._telemetry_since: float | None = None
        self._closes_at: float | None = None  # monotonic; no try begins after it
        self._is_away = False
        self._barriers: list[Future[None]] = []  # of those who wait until all that is pending is written
        self._thread = threading.Thread(target=self._run, name="registry-writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, report: Report | Stopped) -> None:
        with self._changed:
            self._pending.add(report)
            if self._pending.has_telemetry and self._telemetry_since is None:
                self._telemetry_since = time.monotonic()
            self._changed.notify()

    def written(self) -> Future[None]:
        """Done when everything that was put so far is written; while Postgres is away that lasts.

        Fails with ShuttingDown when the outbox is closed before.
        """
        barrier: Future[None] = Future()
        with self._changed:
            if self._closes_at is None:
                self._barriers.append(barrier)
                self._changed.notify()
                return barrier
        barrier.set_exception(_closed())
        return barrier

    def close(self, timeout_seconds: float) -> bool:
        """Writes what is left; False when that was not done in time."""
        with self._changed:
            self._closes_at = time.monotonic() + timeout_seconds
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)
        return not self._thread.is_alive() and not self._pending

    def _run(self) -> None:
        pause_seconds = FIRST_PAUSE_SECONDS
        try:
            while (taken := self._take()) is not None:
                batch, barriers = taken
                rest = self._write(batch)
                if not rest:
                    pause_seconds = FIRST_PAUSE_SECONDS
                    for barrier in barriers:
                        with suppress(InvalidStateError):  # who waited has given up
                            barrier.set_result(None)
                    continue
                self._give_back(rest, barriers)
                if not self._pause(pause_seconds):
                    return
                pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)
        finally:
            connection.close()
            with self._changed:
                self._closes_at = self._closes_at or time.monotonic()
                barriers, self._barriers = self._barriers, []
            for barrier in barriers:
                with suppress(InvalidStateError):
                    barrier.set_exception(_closed())

    def _take(self) -> tuple[Batch, list[Future[None]]] | None:
        """What is to be written next, and who waits for it; None when closed and empty.

        Events at once, and all when somebody waits for it; the rest after it lingered.
        """
        with self._changed:
            while True:
                pending, barriers = self._pending, self._barriers
                if self._closes_at is not None and not pending:
                    return None
                if self._closes_at is not None or barriers:
                    self._pending, self._telemetry_since, self._barriers = Batch(), None, []
                    return pending, barriers
                if pending.events:
                    self._pending = replace(pending, events=[])
                    return Batch(events=pending.events), []
                wait_seconds = None
                if self._telemetry_since is not None:
                    wait_seconds = self._telemetry_since + LINGER_SECONDS - time.monotonic()
                    if wait_seconds <= 0:
                        self._pending, self._telemetry_since = Batch(), None
                        return pending, []  # empty when the end of an operation made its progress old news
                self._changed.wait(wait_seconds)

    def _give_back(self, batch: Batch, barriers: list[Future[None]]) -> None:
        with self._changed:
            batch.add_newer(self._pending)
            self._pending = batch
            self._barriers = barriers + self._barriers
            if batch.has_telemetry and self._telemetry_since is None:
                self._telemetry_since = time.monotonic()

    def _write(self, batch: Batch) -> Batch:
        """What is still to be written: nothing, or all that Postgres did not take because it is away."""
        if not batch:
            return batch
        transaction_id = None
        try:
            with transaction.atomic():
                batch.write()
                transaction_id = _transaction_id()
        except (OperationalError, InterfaceError) as error:
            self._say_away(error)
            connection.close()
            # Lost on the way to its end: only Postgres knows whether it was committed.
            is_written = transaction_id is not None and self._was_committed(transaction_id)
            return Batch() if is_written else batch
        except Exception as error:
            return self._write_parts(batch, error)
        if self._is_away:
            self._is_away = False
            logger.info("Postgres is back; what was kept is written")
        if batch.dropped:
            logger.warning("%d samples and traces were dropped: Postgres was away for too long", batch.dropped)
        return Batch()

    def _write_parts(self, batch: Batch, error: Exception) -> Batch:
        """One report that cannot be written must not hold up the others: each gets its own transaction."""
        parts = list(batch.parts())
        if len(parts) == 1:
            logger.error("a report cannot be written and is dropped: %s", batch, exc_info=error)
            return Batch()
        rest = Batch()
        for part in parts:
            rest.add_newer(part if rest else self._write(part))
        return rest

    def _was_committed(self, transaction_id: str) -> bool:
        while True:
            try:
                status = _transaction_status(transaction_id)
            except (OperationalError, InterfaceError):
                connection.close()
                status = "in progress"
            if status != "in progress":
                return status == "committed"
            if not self._pause(FIRST_PAUSE_SECONDS):
                return False

    def _pause(self, seconds: float) -> bool:
        """Waits; False when the outbox is closed and its time is over."""
        time.sleep(seconds)
        return self._closes_at is None or time.monotonic() < self._closes_at

    def _say_away(self, error: Exception) -> None:
        if not self._is_away:
            self._is_away = True
            logger.warning("Postgres cannot be written; loaderd keeps its reports meanwhile: %s", str(error).strip())


def _closed() -> ShuttingDown:
    return ShuttingDown("loaderd is stopping, and not everything is written.")


def _transaction_id() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_xact_id()::text")
        return str(cursor.fetchone()[0])


def _transaction_status(transaction_id: str) -> str | None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_xact_status(%s::xid8)", [transaction_id])
        status: str | None = cursor.fetchone()[0]
        return status
