"""Writes what loaderd measured: samples, alerts, traces, comparisons. Runs inside the caller's transaction.

Each function takes the reports of one batch in their order and asks the database a fixed number of questions,
however many reports there are. A model or lineage that is not registered any more is left out, with a line in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from django.db import connection
from django.db.models import Max

from loaderd import histogram
from loaderd.reporter import AlertReport
from loaderd.reporter import Comparison as ComparisonReport
from loaderd.reporter import Sample as SampleReport
from loaderd.reporter import Trace as TraceReport
from modelhub.registry.models import Model, ModelVersion
from modelhub.telemetry.models import Alert, Comparison, Sample, Trace

# Length of the intervals that loaderd reports; a shorter last one of a model counts as a whole one.
FINEST_SECONDS = 10

logger = logging.getLogger(__name__)


def record_samples(samples: Sequence[SampleReport]) -> None:
    """Adds the samples; one that is there already (a redelivered report) stays as it is."""
    if not samples:
        return
    versions = _versions({sample.model_id for sample in samples if sample.model_id is not None})
    Sample.objects.bulk_create(
        (
            Sample(
                version_id=None if sample.model_id is None else versions[sample.model_id],
                at=_time(sample.at),
                seconds=FINEST_SECONDS,
                requests=sample.requests,
                items=sample.items,
                errors=min(sample.errors, sample.requests),
                latency_seconds=sample.latency_seconds,
                compute_seconds=sample.compute_seconds,
                histogram=trimmed(sample.histogram),
                cache_hits=sample.cache_hits,
                cache_misses=sample.cache_misses,
                queued=sample.queued,
                in_flight=sample.in_flight,
                private_bytes=sample.private_bytes,
                gpu_bytes=sample.gpu_bytes,
                reserved_bytes=sample.reserved_bytes,
                budget_bytes=sample.budget_bytes,
                available_bytes=sample.available_bytes,
            )
            for sample in samples
            if sample.model_id is None or sample.model_id in versions
        ),
        ignore_conflicts=True,
        batch_size=1000,
    )


def trimmed(counts: Sequence[int]) -> list[int]:
    """The histogram without the zeros at its end, which merging fills up again: a third of the bytes to keep."""
    length = max((index for index, count in enumerate(counts, start=1) if count), default=0)
    return [int(count) for count in counts[:length]]


_ALERTS = Alert._meta.db_table

_RESOLVE = f"""
    UPDATE {_ALERTS} AS alert SET
        resolved_at = greatest(seen.at, alert.opened_at),
        last_seen_at = greatest(alert.last_seen_at, seen.at)
    FROM unnest(%(keys)s::text[], %(ats)s::timestamptz[]) AS seen(key, at)
    WHERE alert.key = seen.key AND alert.resolved_at IS NULL
"""  # noqa: S608 (the only name in it is the table's)

_OPEN = f"""
    INSERT INTO {_ALERTS} AS alert
        (key, kind, version_id, message, value, threshold, opened_at, last_seen_at, acknowledged_by_name)
    SELECT key, kind, version_id, message, value, threshold, at, at, ''
    FROM unnest(
        %(keys)s::text[], %(kinds)s::text[], %(version_ids)s::bigint[], %(messages)s::text[], %(values)s::float8[],
        %(thresholds)s::float8[], %(ats)s::timestamptz[]
    ) AS seen(key, kind, version_id, message, value, threshold, at)
    ON CONFLICT (key) WHERE resolved_at IS NULL DO UPDATE SET
        message = excluded.message,
        value = excluded.value,
        threshold = excluded.threshold,
        last_seen_at = greatest(alert.last_seen_at, excluded.last_seen_at)
"""  # noqa: S608 (the only name in it is the table's)


def record_alerts(reports: Sequence[AlertReport]) -> None:
    """Opens, refreshes and resolves alerts by their key; an alert that was resolved opens anew as another row."""
    if not reports:
        return
    versions = _versions({report.model_id for report in reports if report.model_id is not None})
    known = [report for report in reports if report.model_id is None or report.model_id in versions]
    for turn in _turns(known):
        resolved = [report for report in turn if not report.is_open]
        opened = [report for report in turn if report.is_open]
        with connection.cursor() as cursor:
            if resolved:
                keys, ats = [report.key for report in resolved], [_time(report.at) for report in resolved]
                cursor.execute(_RESOLVE, {"keys": keys, "ats": ats})
            if opened:
                cursor.execute(
                    _OPEN,
                    {
                        "keys": [report.key for report in opened],
                        "kinds": [report.kind for report in opened],
                        "version_ids": [report.model_id and versions[report.model_id] for report in opened],
                        "messages": [_text(report.message) for report in opened],
                        "values": [report.value for report in opened],
                        "thresholds": [report.threshold for report in opened],
                        "ats": [_time(report.at) for report in opened],
                    },
                )


def resolve_open_alerts(at: float) -> int:
    """Resolves every open alert and returns how many: a daemon that starts opens again what it finds itself.

    Without it, what a killed daemon had opened would stay open for ever.
    """
    return Alert.objects.filter(resolved_at=None).update(resolved_at=_time(at))


def _turns(reports: Iterable[AlertReport]) -> list[list[AlertReport]]:
    """The reports in order, in lists within which each key occurs once; nearly always one list."""
    turns: list[dict[str, AlertReport]] = [{}]
    for report in reports:
        if report.key in turns[-1]:
            turns.append({})
        turns[-1][report.key] = report
    return [list(turn.values()) for turn in turns]


def record_traces(traces: Sequence[TraceReport]) -> None:
    if not traces:
        return
    versions = _versions({trace.model_id for trace in traces})
    Trace.objects.bulk_create(
        (
            Trace(
                version_id=versions[trace.model_id],
                at=_time(trace.at),
                status=trace.status,
                route=trace.route,
                user=_text(trace.user)[:150],
                items=trace.items,
                batch_items=trace.batch_items,
                total_seconds=trace.total_seconds,
                queue_seconds=trace.queue_seconds,
                compute_seconds=trace.compute_seconds,
            )
            for trace in traces
            if trace.model_id in versions
        ),
        batch_size=1000,
    )


_COMPARISONS = Comparison._meta.db_table
_COUNTERS = (
    "compared",
    "disagreed",
    "dropped",
    *(f"{side}_{name}" for side in ("live", "candidate") for name in ("requests", "errors", "latency_seconds")),
)
_HISTOGRAMS = ("live_histogram", "candidate_histogram")

Triple = tuple[str, str, str]


def record_comparisons(reports: Sequence[ComparisonReport]) -> None:
    """Adds the increments to the comparison of the present split, which begins with the split's setting.

    A lineage whose traffic nobody set since (its candidate was set, and it has a shadow from before) goes on with
    its newest comparison, or begins one with the report.
    """
    merged: dict[Triple, ComparisonReport] = {}
    for report in reports:
        key = (report.lineage, report.live, report.candidate)
        merged[key] = summed(merged[key], report) if key in merged else report
    if not merged:
        return
    lineages = {
        name: (pk, changed_at)
        for pk, name, changed_at in Model.objects.filter(name__in={lineage for lineage, _, _ in merged}).values_list(
            "pk", "name", "traffic_changed_at"
        )
    }
    versions = _versions({model_id for _, live, candidate in merged for model_id in (live, candidate)})
    newest = {
        (lineage, live, candidate): since
        for lineage, live, candidate, since in Comparison.objects.filter(
            lineage__in=[pk for pk, _ in lineages.values()]
        )
        .order_by()
        .values_list("lineage", "live", "candidate")
        .annotate(since_newest=Max("since"))
    }
    rows = []
    for report in merged.values():
        if report.lineage not in lineages or report.live not in versions or report.candidate not in versions:
            logger.warning("a comparison in %s is left out: it is not registered any more", report.lineage)
            continue
        lineage_id, changed_at = lineages[report.lineage]
        ids = (lineage_id, versions[report.live], versions[report.candidate])
        before = newest.get(ids)
        if changed_at is not None and _time(report.at) < changed_at:
            # Seen under the split before; a pair that was not compared then is not worth a row of its own.
            if before is not None:
                rows.append((ids, before, report))
            continue
        rows.append((ids, changed_at or before or _time(report.at), report))
    if rows:
        _add_comparisons(rows)


def _add_comparisons(rows: Sequence[tuple[tuple[int, int, int], datetime, ComparisonReport]]) -> None:
    """One INSERT; what is there already is added to, histograms bucket by bucket."""
    added = ", ".join(f"{name} = comparison.{name} + excluded.{name}" for name in _COUNTERS)
    merged = ", ".join(f"{name} = {added_up(f'comparison.{name}', f'excluded.{name}')}" for name in _HISTOGRAMS)
    columns = ("lineage_id", "live_id", "candidate_id", "since", "last_at", *_COUNTERS, *_HISTOGRAMS)
    row = f"({', '.join(['%s'] * (5 + len(_COUNTERS)))}, %s::bigint[], %s::bigint[])"
    values: list[object] = []
    for ids, since, report in rows:
        counters = [getattr(report, name) for name in _COUNTERS]
        values += [*ids, since, _time(report.at), *counters]
        values += [trimmed(getattr(report, name)) for name in _HISTOGRAMS]
    statement = f"""
        INSERT INTO {_COMPARISONS} AS comparison ({", ".join(columns)})
        VALUES {", ".join([row] * len(rows))}
        ON CONFLICT (lineage_id, live_id, candidate_id, since) DO UPDATE SET
            last_at = greatest(comparison.last_at, excluded.last_at), {added}, {merged}
    """  # noqa: S608 (names of our tables and columns)
    with connection.cursor() as cursor:
        cursor.execute(statement, values)


def added_up(left: str, right: str) -> str:
    """SQL of the sum, bucket by bucket, of two columns of histograms; the shorter one counts as filled up with 0."""
    return (
        f"ARRAY(SELECT coalesce(a, 0) + coalesce(b, 0) FROM unnest({left}, {right}) "  # noqa: S608 (columns' names)
        "WITH ORDINALITY AS pair(a, b, position) ORDER BY position)"
    )


def summed(before: ComparisonReport, added: ComparisonReport) -> ComparisonReport:
    """Both increments of one pair of versions as one, seen at the later time."""
    sums: dict[str, Any] = {name: getattr(before, name) + getattr(added, name) for name in _COUNTERS}
    sums |= {name: histogram.merged([getattr(before, name), getattr(added, name)]) for name in _HISTOGRAMS}
    return replace(added, at=max(before.at, added.at), **sums)


def _versions(model_ids: set[str]) -> Mapping[str, int]:
    """model_id -> primary key; one query, or none."""
    if not model_ids:
        return {}
    found = dict(ModelVersion.objects.filter(model_id__in=model_ids).order_by().values_list("model_id", "pk"))
    if gone := sorted(model_ids - found.keys()):
        logger.warning("telemetry of %s is left out: not registered any more", ", ".join(gone))
    return found


def _time(unix_seconds: float) -> datetime:
    return datetime.fromtimestamp(unix_seconds, UTC)


def _text(value: str) -> str:
    """The text without what Postgres refuses: NUL and lone surrogates."""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
