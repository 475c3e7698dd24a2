"""Keeps the measurements small: rows are rolled up with age, and deleted when METRICS_RETENTION_DAYS are over.

Runs every ten minutes through django-q2's schedule (see the admin), or by hand with `manage.py maintain`. Operations,
state changes and the history of lineages stay, but for what others add to `PURGES`: the loads on demand.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection, models, transaction
from django.db.models import Q
from django.utils import timezone

from modelhub.policy.effective import effective
from modelhub.telemetry.models import Alert, Comparison, Sample, Trace
from modelhub.telemetry.recording import added_up

# Age from which rows of a length become rows of the next one.
LEVELS = ((10, 60, timedelta(hours=2)), (60, 600, timedelta(hours=48)))

# The queue ends a task after 20 s; what is left is done the next time.
SCHEDULED_SECONDS = 10.0
CHUNK_BINS = 15  # bins of time that one transaction rolls up
CHUNK_ROWS = 10_000  # rows that one transaction deletes
SCHEDULE_NAME = "Roll up and purge measurements"

# Does a bounded piece of its work and returns the rows, or None when nothing is left.
Step = Callable[[], int | None]
# What others delete at the same time: each is given the moment before which rows are too old.
PURGES: list[Callable[[datetime], Step]] = []

_LOCK_KEY = "modelhub.telemetry.maintenance"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SAMPLES = Sample._meta.db_table
_SUMS = ("requests", "items", "errors", "latency_seconds", "compute_seconds", "cache_hits", "cache_misses")
_HIGHEST = ("queued", "in_flight", "private_bytes", "gpu_bytes", "reserved_bytes", "budget_bytes")

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Maintained:
    """What one run did. is_done: nothing was left to do; False when its time was over, or another run is at it."""

    rolled_up: int = 0
    purged: int = 0
    seconds: float = 0.0
    is_done: bool = False
    is_elsewhere: bool = False

    def __str__(self) -> str:
        if self.is_elsewhere:
            return "Another run is at it; nothing was done."
        rest = "" if self.is_done else "; the rest is left to the next run"
        return f"{self.rolled_up} rows rolled up, {self.purged} deleted in {self.seconds:.1f} s{rest}."


def maintain(limit_seconds: float | None = SCHEDULED_SECONDS) -> dict[str, Any]:
    """Rolls up and purges, for at most about `limit_seconds` (None: until it is done); the schedule calls it.

    Safe to repeat and to run twice at once: the second run does nothing. Returns {rolled_up, purged, seconds,
    is_done, is_elsewhere, sentence}.
    """
    began = time.monotonic()
    done = Maintained()
    with _alone() as is_alone:
        if not is_alone:
            done.is_elsewhere = True
        else:
            done.is_done = True
            for step, count in _steps(timezone.now()):
                while (rows := step()) is not None:
                    setattr(done, count, getattr(done, count) + rows)
                    if limit_seconds is not None and time.monotonic() - began > limit_seconds:
                        done.is_done = False
                        break
                if not done.is_done:
                    break
    done.seconds = round(time.monotonic() - began, 3)
    if done.rolled_up or done.purged:
        logger.info("%s", done)
    return {
        "rolled_up": done.rolled_up,
        "purged": done.purged,
        "seconds": done.seconds,
        "is_done": done.is_done,
        "is_elsewhere": done.is_elsewhere,
        "sentence": str(done),
    }


def _steps(now: datetime) -> Iterator[tuple[Step, str]]:
    """(step, what it counts).

    What is too old goes first, so that it is not rolled up for nothing.
    """
    oldest = now - timedelta(days=effective().METRICS_RETENTION_DAYS)
    for seconds in (10, 60, 600):
        yield _purge(Sample, Q(seconds=seconds, at__lt=oldest)), "purged"
    yield _purge(Trace, Q(at__lt=oldest)), "purged"
    yield _purge(Alert, Q(resolved_at__lt=oldest)), "purged"
    yield _purge(Comparison, Q(last_at__lt=oldest)), "purged"
    for purge in PURGES:
        yield purge(oldest), "purged"
    for fine, coarse, age in LEVELS:
        yield _roll_up(fine, coarse, now - age), "rolled_up"


def _purge(model: type[models.Model], condition: Q) -> Step:
    def step() -> int | None:
        rows = model._default_manager.filter(condition).order_by().values("pk")[:CHUNK_ROWS]
        with transaction.atomic():
            deleted, _ = model._default_manager.filter(pk__in=rows).delete()
        return deleted or None

    return step


# One statement: the fine rows go as the coarse one comes, so that a moment is never counted twice, nor missing.
# A bin that was rolled up before gets what came late (loaderd keeps its reports while Postgres is away).
_ROLL_UP = f"""
    WITH gone AS (
        DELETE FROM {_SAMPLES} WHERE seconds = %(fine)s AND at > %(begin)s AND at <= %(end)s RETURNING *
    ), binned AS (
        SELECT *, date_bin(%(step)s, at - interval '1 microsecond', %(epoch)s) + %(step)s AS bin FROM gone
    ), cells AS (
        SELECT version_id, bin, bucket, sum(count)::bigint AS total
        FROM binned, unnest(histogram) WITH ORDINALITY AS counted(count, bucket) GROUP BY 1, 2, 3
    ), histograms AS (
        SELECT version_id, bin, array_agg(total ORDER BY bucket) AS histogram FROM cells GROUP BY 1, 2
    ), sums AS (
        SELECT version_id, bin, {", ".join(f"sum({name}) AS {name}" for name in _SUMS)},
            {", ".join(f"max({name}) AS {name}" for name in _HIGHEST)}, min(available_bytes) AS available_bytes
        FROM binned GROUP BY 1, 2
    ), written AS (
        INSERT INTO {_SAMPLES} AS sample
            (version_id, at, seconds, histogram, available_bytes, {", ".join((*_SUMS, *_HIGHEST))})
        SELECT sums.version_id, sums.bin, %(coarse)s, coalesce(histogram, ARRAY[]::bigint[]), available_bytes,
            {", ".join((*_SUMS, *_HIGHEST))}
        FROM sums LEFT JOIN histograms
            ON histograms.bin = sums.bin AND histograms.version_id IS NOT DISTINCT FROM sums.version_id
        ON CONFLICT ON CONSTRAINT sample_once DO UPDATE SET
            {", ".join(f"{name} = sample.{name} + excluded.{name}" for name in _SUMS)},
            {", ".join(f"{name} = greatest(sample.{name}, excluded.{name})" for name in _HIGHEST)},
            available_bytes = least(sample.available_bytes, excluded.available_bytes),
            histogram = {added_up("sample.histogram", "excluded.histogram")}
    )
    SELECT count(*) FROM gone
"""  # noqa: S608 (names of our table and its columns)


def _roll_up(fine: int, coarse: int, before: datetime) -> Step:
    """before: rows older than this are rolled up, by whole bins."""
    width = timedelta(seconds=coarse)
    end = _EPOCH + (before - _EPOCH) // width * width

    def step() -> int | None:
        oldest = Sample.objects.filter(seconds=fine, at__lte=end).order_by("at").values_list("at", flat=True).first()
        if oldest is None:
            return None
        begin = _EPOCH + (oldest - timedelta(microseconds=1) - _EPOCH) // width * width
        values = {
            "fine": fine,
            "coarse": coarse,
            "step": width,
            "epoch": _EPOCH,
            "begin": begin,
            "end": min(begin + CHUNK_BINS * width, end),
        }
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(_ROLL_UP, values)
            return int(cursor.fetchone()[0])

    return step


@contextmanager
def _alone() -> Iterator[bool]:
    """Whether this is the only run. Postgres lets go when this process is killed."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [_LOCK_KEY])
        is_alone = bool(cursor.fetchone()[0])
    try:
        yield is_alone
    finally:
        if is_alone:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", [_LOCK_KEY])


def make_schedule(using: str = "default", **kwargs: Any) -> None:
    """The schedule that runs maintain(), unless it is there: people may change it. After migrations."""
    from django_q.models import Schedule

    Schedule.objects.using(using).get_or_create(
        name=SCHEDULE_NAME,
        defaults={
            "func": "modelhub.telemetry.maintenance.maintain",
            "schedule_type": Schedule.MINUTES,
            "minutes": 10,
            "repeats": -1,
        },
    )
