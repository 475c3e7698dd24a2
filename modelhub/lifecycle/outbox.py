"""What loaderd reported and Postgres does not have yet: nothing is lost while Postgres is away, or counted twice."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from django.db import InterfaceError, OperationalError, connection, transaction

from loaderd.reporter import Heartbeat, OperationEnded, OperationProgress, Report, StateReport, Usage
from modelhub.lifecycle.recording import (
    record_ended,
    record_heartbeat,
    record_progress,
    record_states,
    record_stop,
    record_usage,
)

# Progress, heartbeats and counters wait this long for company, so that a short load has the writer to itself.
LINGER_SECONDS = 0.05
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 2.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stopped:
    """loaderd stops, and nothing follows."""

    at: float


Event = StateReport | OperationEnded | Stopped


@dataclass(slots=True)
class Batch:
    """Reports that are written in one transaction.

    events: all, in order. progress, usage: merged, one an operation or model. heartbeat: the newest.
    """

    events: list[Event] = field(default_factory=list)
    progress: dict[str, OperationProgress] = field(default_factory=dict)
    usage: dict[str, Usage] = field(default_factory=dict)
    heartbeat: Heartbeat | None = None

    def __bool__(self) -> bool:
        return bool(self.events) or self.has_telemetry

    @property
    def has_telemetry(self) -> bool:
        return bool(self.progress or self.usage or self.heartbeat)

    def add(self, report: Report | Stopped) -> None:
        match report:
            case OperationProgress():
                self.progress[report.operation_id] = report
            case Usage():
                self.usage[report.model_id] = _sum(self.usage.get(report.model_id), report)
            case Heartbeat():
                self.heartbeat = report
            case _:
                self.events.append(report)
                if isinstance(report, OperationEnded):
                    self.progress.pop(report.operation_id, None)

    def add_newer(self, newer: Batch) -> None:
        """Puts `newer` behind what is here."""
        for part in newer.parts():
            for report in (*part.events, *part.progress.values(), *part.usage.values(), part.heartbeat):
                if report is not None:
                    self.add(report)

    def parts(self) -> Iterator[Batch]:
        """One batch for each report; events first, in order."""
        for event in self.events:
            yield Batch(events=[event])
        for key, progress in self.progress.items():
            yield Batch(progress={key: progress})
        for key, usage in self.usage.items():
            yield Batch(usage={key: usage})
        if self.heartbeat is not None:
            yield Batch(heartbeat=self.heartbeat)

    def write(self) -> None:
        """To be called in a transaction. Versions are written before operations, as everywhere."""
        record_states([event for event in self.events if isinstance(event, StateReport)])
        record_usage(list(self.usage.values()))
        if self.heartbeat is not None:
            record_heartbeat(self.heartbeat)
        record_ended(event for event in self.events if isinstance(event, OperationEnded))
        record_progress(self.progress.values())
        for event in self.events:
            if isinstance(event, Stopped):
                record_stop(event.at)


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
    )


class Outbox:
    """`put()` from any thread, without waiting; one thread with its own connection writes."""

    def __init__(self) -> None:
        self._pending = Batch()
        self._changed = threading.Condition()
        self._telemetry_since: float | None = None
        self._closes_at: float | None = None  # monotonic; no try begins after it
        self._is_away = False
        self._thread = threading.Thread(target=self._run, name="registry-writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, report: Report | Stopped) -> None:
        with self._changed:
            self._pending.add(report)
            if self._pending.has_telemetry and self._telemetry_since is None:
                self._telemetry_since = time.monotonic()
            self._changed.notify()

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
            while (batch := self._take()) is not None:
                rest = self._write(batch)
                if not rest:
                    pause_seconds = FIRST_PAUSE_SECONDS
                    continue
                self._give_back(rest)
                if not self._pause(pause_seconds):
                    return
                pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)
        finally:
            connection.close()

    def _take(self) -> Batch | None:
        """What is to be written next: events at once, the rest after it lingered; None when closed and empty."""
        with self._changed:
            while True:
                pending = self._pending
                if self._closes_at is not None:
                    self._pending, self._telemetry_since = Batch(), None
                    return pending or None
                if pending.events:
                    self._pending = replace(pending, events=[])
                    return Batch(events=pending.events)
                wait_seconds = None
                if self._telemetry_since is not None:
                    wait_seconds = self._telemetry_since + LINGER_SECONDS - time.monotonic()
                    if wait_seconds <= 0:
                        self._pending, self._telemetry_since = Batch(), None
                        return pending  # empty when the end of an operation made its progress old news
                self._changed.wait(wait_seconds)

    def _give_back(self, batch: Batch) -> None:
        with self._changed:
            batch.add_newer(self._pending)
            self._pending = batch
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


def _transaction_id() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_xact_id()::text")
        return str(cursor.fetchone()[0])


def _transaction_status(transaction_id: str) -> str | None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_xact_status(%s::xid8)", [transaction_id])
        status: str | None = cursor.fetchone()[0]
        return status
