"""What was measured, for people and programs: sums, rates, quantiles and series of a window, in few queries.

Rows of every resolution count: a moment is in one row only, fine while it is young and rolled up later, so the sum
over a window needs no choice. A window reaches back to the whole of the row that its beginning falls into.
docs/telemetry.md has the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection
from django.utils import timezone

from loaderd import histogram
from modelhub.registry.models import Model, ModelVersion
from modelhub.telemetry.models import Alert, Comparison, Sample

# Rows of an age up to this are still kept at the resolution; see maintenance.
RESOLUTIONS_SECONDS = (10, 60, 600)
FINEST_FOR_SECONDS = {10: 2 * 3600, 60: 48 * 3600}

_SAMPLES = Sample._meta.db_table
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# The table is read once; the buckets that stand empty, nearly all, do not reach the second aggregate.
_SUMMARIES = f"""
    WITH seen AS MATERIALIZED (
        SELECT * FROM {_SAMPLES} WHERE version_id = ANY(%(version_ids)s) AND at > %(begin)s AND at <= %(end)s
    ), buckets AS (
        SELECT version_id, array_agg(bucket) AS buckets, array_agg(total) AS totals
        FROM (
            SELECT version_id, bucket - 1 AS bucket, sum(count)::bigint AS total
            FROM seen, unnest(histogram) WITH ORDINALITY AS counted(count, bucket)
            WHERE count > 0 GROUP BY 1, 2
        ) AS cell
        GROUP BY version_id
    ), sums AS (
        SELECT version_id,
            sum(requests)::bigint AS requests, sum(items)::bigint AS items, sum(errors)::bigint AS errors,
            sum(latency_seconds) AS latency_seconds, sum(compute_seconds) AS compute_seconds,
            sum(cache_hits)::bigint AS cache_hits, sum(cache_misses)::bigint AS cache_misses,
            max(queued) AS max_queued, max(in_flight) AS max_in_flight,
            max(private_bytes) AS private_bytes_max, max(gpu_bytes) AS gpu_bytes_max,
            sum(seconds)::bigint AS seconds, max(at) AS last_at
        FROM seen GROUP BY version_id
    )
    SELECT * FROM sums LEFT JOIN buckets USING (version_id)
"""  # noqa: S608 (the only name in it is the table's)


def summary(version: ModelVersion, window_seconds: float) -> dict[str, Any]:
    """What happened to one model within the last `window_seconds`; zeros and None for one that was not seen.

    requests, items, errors: answered predictions, inputs in them, failed ones. error_rate: errors / requests, 0.0 to
    1.0. requests_per_second: requests / window. throughput: items / second of computing, or None.
    latency_ms: {mean, p50, p95, p99}, each None without requests. cache_hits: answered without the model, which are
    not among the requests; cache_misses: computed although answers are kept; cache_hit_rate: None without both.
    max_queued, max_in_flight, private_bytes_max, gpu_bytes_max: the highest; bytes are None when none were measured.
    loaded_seconds: of the window, in which it was loaded, by the samples. last_at: of the newest sample, or None.
    """
    return summaries([version.pk], window_seconds)[version.pk]


def summaries(version_ids: Iterable[int], window_seconds: float) -> dict[int, dict[str, Any]]:
    """summary() of each, by primary key: one query for any number of models."""
    wanted = list(version_ids)
    found: dict[int, Mapping[str, Any]] = {}
    if wanted:
        end = timezone.now()
        values = {"version_ids": wanted, "begin": end - timedelta(seconds=window_seconds), "end": end}
        found = {row["version_id"]: row for row in _rows(_SUMMARIES, values)}
    return {pk: _summary(found.get(pk, {}), window_seconds) for pk in wanted}


def _summary(row: Mapping[str, Any], window_seconds: float) -> dict[str, Any]:
    requests, items, errors = (row.get(name) or 0 for name in ("requests", "items", "errors"))
    compute_seconds = row.get("compute_seconds") or 0.0
    hits, misses = row.get("cache_hits") or 0, row.get("cache_misses") or 0
    return {
        "window_seconds": window_seconds,
        "requests": requests,
        "items": items,
        "errors": errors,
        "error_rate": _share(errors, requests),
        "requests_per_second": requests / window_seconds,
        "throughput": items / compute_seconds if compute_seconds else None,
        "latency_ms": latency_ms(requests, row.get("latency_seconds") or 0.0, _dense(row)),
        "cache_hits": hits,
        "cache_misses": misses,
        "cache_hit_rate": hits / (hits + misses) if hits or misses else None,
        "max_queued": row.get("max_queued") or 0,
        "max_in_flight": row.get("max_in_flight") or 0,
        "private_bytes_max": row.get("private_bytes_max"),
        "gpu_bytes_max": row.get("gpu_bytes_max"),
        "loaded_seconds": min(row.get("seconds") or 0, window_seconds),
        "last_at": row.get("last_at"),
    }


# Beyond it the host's steps have no quantiles: every model's histograms would have to be added up.
HOST_QUANTILES_FOR_SECONDS = 3600

# Cells of the table: which bin a row belongs to. `at` is an interval's end, so a row at a bin's end belongs to it.
_SEEN = """
    WITH seen AS MATERIALIZED (
        SELECT {columns}, date_bin(%(step)s, at - interval '1 microsecond', %(epoch)s) + %(step)s AS bin
        FROM {table} WHERE {which} AND at > %(begin)s AND at <= %(end)s
    )"""
_SUMS = """, sums AS (
        SELECT bin,
            sum(requests)::bigint AS requests, sum(items)::bigint AS items, sum(errors)::bigint AS errors,
            sum(latency_seconds) AS latency_seconds,
            max(queued) AS queued, max(in_flight) AS in_flight,
            {bytes}
        FROM seen GROUP BY bin
    )"""
_BUCKETS = """, buckets AS (
        SELECT bin, array_agg(bucket) AS buckets, array_agg(total) AS totals
        FROM (
            SELECT bin, bucket - 1 AS bucket, sum(count)::bigint AS total
            FROM seen, unnest(histogram) WITH ORDINALITY AS counted(count, bucket)
            WHERE count > 0 GROUP BY 1, 2
        ) AS cell
        GROUP BY bin
    )"""
_SERIES = _SEEN + _BUCKETS + _SUMS + " SELECT * FROM sums LEFT JOIN buckets USING (bin)"  # noqa: S608 (our own text)
_SERIES_OF_SUMS = _SEEN + _SUMS + " SELECT * FROM sums"  # noqa: S608
_COUNTED = ("version_id", "requests", "items", "errors", "latency_seconds", "queued", "in_flight")
_BYTES = ("private_bytes", "gpu_bytes", "reserved_bytes", "budget_bytes", "available_bytes")


def series(version: ModelVersion | None, window_seconds: float, points: int = 120) -> list[dict[str, Any]]:
    """At most `points` equal steps up to now, oldest first, for a chart: one query.

    Each: {at (its end), seconds, requests, items, errors, error_rate, requests_per_second, latency_ms {mean, p50,
    p95, p99}, queued, in_flight, private_bytes, gpu_bytes, reserved_bytes, budget_bytes, available_bytes}. Bytes are
    None in a step without a sample: the model was not loaded, or loaderd was away. version None: the host, whose
    requests are those of all models and whose bytes are what all models hold; for a window longer than
    HOST_QUANTILES_FOR_SECONDS its latency_ms has the mean only, and None for the quantiles. A step is never shorter
    than the resolution that is still kept at the window's beginning.
    """
    step = _step_seconds(window_seconds, points)
    end = math.ceil(timezone.now().timestamp() / step) * step
    count = max(1, min(points, math.ceil(window_seconds / step)))
    which = "version_id = %(version_id)s" if version is not None else "seconds = ANY(%(resolutions)s)"
    only_host = "" if version is not None else " FILTER (WHERE version_id IS NULL)"
    columns = [f"{'min' if name == 'available_bytes' else 'max'}({name}){only_host} AS {name}" for name in _BYTES]
    begin = _EPOCH + timedelta(seconds=end - count * step)
    with_quantiles = version is not None or window_seconds <= HOST_QUANTILES_FOR_SECONDS
    counted = ", ".join((*_COUNTED, *_BYTES))
    statement = (_SERIES if with_quantiles else _SERIES_OF_SUMS).format(
        table=_SAMPLES,
        which=which,
        bytes=", ".join(columns),
        columns=f"{counted}, histogram" if with_quantiles else counted,
    )
    rows = _rows(
        statement,
        {
            "version_id": version.pk if version is not None else None,
            "resolutions": list(RESOLUTIONS_SECONDS),
            "step": timedelta(seconds=step),
            "epoch": _EPOCH,
            "begin": begin,
            "end": _EPOCH + timedelta(seconds=end),
        },
    )
    found = {row["bin"]: row for row in rows}
    ends = (begin + timedelta(seconds=step * number) for number in range(1, count + 1))
    return [_point(found.get(at, {}), at, step) for at in ends]


def _point(row: Mapping[str, Any], at: datetime, step: int) -> dict[str, Any]:
    requests, errors = row.get("requests") or 0, row.get("errors") or 0
    return {
        "at": at,
        "seconds": step,
        "requests": requests,
        "items": row.get("items") or 0,
        "errors": errors,
        "error_rate": _share(errors, requests),
        "requests_per_second": requests / step,
        "latency_ms": latency_ms(requests, row.get("latency_seconds") or 0.0, _dense(row)),
        "queued": row.get("queued") or 0,
        "in_flight": row.get("in_flight") or 0,
        **{name: row.get(name) for name in _BYTES},
    }


def _step_seconds(window_seconds: float, points: int) -> int:
    """A whole number of the coarsest rows that the window holds."""
    coarsest = next(
        (seconds for seconds, kept_seconds in FINEST_FOR_SECONDS.items() if window_seconds <= kept_seconds),
        RESOLUTIONS_SECONDS[-1],
    )
    return max(1, math.ceil(window_seconds / max(1, points) / coarsest)) * coarsest


def comparison_of(lineage: Model) -> dict[str, Any] | None:
    """Live and candidate side by side, of the newest comparison of this lineage; None before the first.

    {since, last_at, is_current (the split is the present one), compared, disagreed, disagreement_rate (None when
    nothing was compared), dropped, live, candidate: {model_id, version, requests, errors, error_rate, latency_ms}}.
    """
    newest = (
        Comparison.objects.filter(lineage=lineage)
        .select_related("live", "candidate")
        .only(
            *(field.name for field in Comparison._meta.concrete_fields),
            *(f"{side}__{name}" for side in ("live", "candidate") for name in ("model_id", "version")),
        )
        .order_by("-since", "-last_at")
        .first()
    )
    return None if newest is None else comparison_view(newest, lineage)


def comparison_view(found: Comparison, lineage: Model) -> dict[str, Any]:
    """As comparison_of(); no query when the versions are there."""
    return {
        "lineage": lineage.name,
        "since": found.since,
        "last_at": found.last_at,
        "is_current": lineage.traffic_changed_at is None or found.since >= lineage.traffic_changed_at,
        "compared": found.compared,
        "disagreed": found.disagreed,
        "disagreement_rate": found.disagreed / found.compared if found.compared else None,
        "dropped": found.dropped,
        "live": _side(
            found.live, found.live_requests, found.live_errors, found.live_latency_seconds, found.live_histogram
        ),
        "candidate": _side(
            found.candidate,
            found.candidate_requests,
            found.candidate_errors,
            found.candidate_latency_seconds,
            found.candidate_histogram,
        ),
    }


def _side(
    version: ModelVersion, requests: int, errors: int, latency_seconds: float, counts: Sequence[int]
) -> dict[str, Any]:
    return {
        "model_id": version.model_id,
        "version": version.version,
        "requests": requests,
        "errors": errors,
        "error_rate": _share(errors, requests),
        "latency_ms": latency_ms(requests, latency_seconds, counts),
    }


def open_alerts() -> list[Alert]:
    """What is open now, acknowledged or not, newest first; one query. `version.model_id` is there."""
    fields = [field.name for field in Alert._meta.concrete_fields]
    found = Alert.objects.filter(resolved_at=None).select_related("version")
    return list(found.only(*fields, "version__model_id"))


def latency_ms(requests: int, latency_seconds: float, counts: Sequence[int]) -> dict[str, float | None]:
    """{mean, p50, p95, p99} in milliseconds; quantiles are within 9 % (loaderd.histogram)."""
    mean = latency_seconds / requests if requests else None
    quantiles = {f"p{share:.0%}".rstrip("%"): histogram.quantile(counts, share) for share in (0.5, 0.95, 0.99)}
    return {
        name: None if seconds is None else round(seconds * 1000, 3)
        for name, seconds in {"mean": mean, **quantiles}.items()
    }


def _dense(row: Mapping[str, Any]) -> list[int]:
    """A histogram from its buckets that are not empty."""
    dense = histogram.empty()
    for bucket, total in zip(row.get("buckets") or (), row.get("totals") or (), strict=True):
        dense[bucket] = total
    return dense


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _rows(statement: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
