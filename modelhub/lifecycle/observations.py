"""Writes what loaderd sees again and again: heartbeats, counters, health.

A fixed number of queries, however many models; inside the caller's transaction. Moves are in `recording.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.db import connection

from loaderd.reporter import HealthReport, Heartbeat, Usage
from modelhub.lifecycle.models import LoaderStatus
from modelhub.lifecycle.settings import ENVIRONMENT, own_environment
from modelhub.lifecycle.storable import at_time, storable
from modelhub.registry.models import ModelVersion

_VERSIONS = ModelVersion._meta.db_table
_IS_MEASURED = "version.status = 'loaded' AND version.loaded_digest = version.measured_digest"

# What is measured of a loaded model is remembered for its next admission, as long as its bytes stay the same.
_OBSERVE = f"""
    UPDATE {_VERSIONS} AS version SET
        observed_at = %(at)s,
        pid = seen.pid,
        started_at = to_timestamp(seen.started_at),
        phase = coalesce(seen.phase, ''),
        private_bytes = coalesce(seen.private_bytes, version.private_bytes),
        pss_bytes = coalesce(seen.pss_bytes, version.pss_bytes),
        gpu_bytes = seen.gpu_bytes,
        peak_private_bytes = greatest(version.peak_private_bytes, seen.private_bytes),
        heartbeat_at = CASE WHEN version.status = 'loading' THEN version.heartbeat_at
            ELSE greatest(version.heartbeat_at, coalesce(to_timestamp(seen.answered_at), %(at)s)) END,
        measured_resident_bytes = CASE WHEN {_IS_MEASURED}
            THEN greatest(version.measured_resident_bytes, seen.private_bytes)
            ELSE version.measured_resident_bytes END,
        measured_gpu_bytes = CASE WHEN {_IS_MEASURED}
            THEN greatest(version.measured_gpu_bytes, seen.gpu_bytes)
            ELSE version.measured_gpu_bytes END
    FROM unnest(
        %(model_ids)s::text[], %(pids)s::int[], %(started_ats)s::float8[], %(phases)s::text[],
        %(private_bytes)s::bigint[], %(pss_bytes)s::bigint[], %(gpu_bytes)s::bigint[], %(answered_ats)s::float8[]
    ) AS seen(model_id, pid, started_at, phase, private_bytes, pss_bytes, gpu_bytes, answered_at)
    WHERE version.model_id = seen.model_id
        AND version.status IN ('loading', 'loaded', 'unloading')
        AND version.status_changed_at <= %(at)s
"""  # noqa: S608 (the only name in it is the table's)


def record_heartbeat(heartbeat: Heartbeat) -> None:
    """The daemon's row and what it saw of its models: two queries, however many they are.

    A model that moved after the heartbeat was made is left as it is. The facts get the environment of this process,
    which is the daemon's.
    """
    facts = storable({**heartbeat.facts, ENVIRONMENT: own_environment()})
    started_at = facts.get("started_at")
    status = LoaderStatus(
        pk=1,
        pid=facts.get("pid"),
        boot_id=facts.get("boot_id") or "",
        started_at=None if started_at is None else at_time(started_at),
        observed_at=at_time(heartbeat.at),
        facts=facts,
    )
    LoaderStatus.objects.bulk_create(
        [status],
        update_conflicts=True,
        unique_fields=["id"],
        update_fields=["pid", "boot_id", "started_at", "observed_at", "stopped_at", "facts"],
    )
    if not heartbeat.runtimes:
        return
    runtimes = heartbeat.runtimes.values()
    with connection.cursor() as cursor:
        cursor.execute(
            _OBSERVE,
            {
                "at": at_time(heartbeat.at),
                "model_ids": list(heartbeat.runtimes),
                "pids": [runtime.pid for runtime in runtimes],
                "started_ats": [runtime.started_at for runtime in runtimes],
                "phases": [runtime.phase and runtime.phase.value for runtime in runtimes],
                "private_bytes": [runtime.private_bytes for runtime in runtimes],
                "pss_bytes": [runtime.pss_bytes for runtime in runtimes],
                "gpu_bytes": [runtime.gpu_bytes for runtime in runtimes],
                "answered_ats": [runtime.answered_at for runtime in runtimes],
            },
        )


def record_stop(at: float) -> None:
    """loaderd says goodbye."""
    LoaderStatus.objects.filter(pk=1).update(observed_at=at_time(at), stopped_at=at_time(at))


_COUNT = f"""
    UPDATE {_VERSIONS} AS version SET
        usage_count = version.usage_count + added.requests,
        item_count = version.item_count + added.items,
        latency_seconds_total = version.latency_seconds_total + added.latency_seconds,
        prediction_error_count = version.prediction_error_count + added.errors,
        error_count = version.error_count + added.errors,
        cache_hit_count = version.cache_hit_count + added.cache_hits,
        cache_miss_count = version.cache_miss_count + added.cache_misses,
        last_used_at = greatest(version.last_used_at, to_timestamp(added.last_at)),
        last_error = CASE WHEN added.last_error = '' THEN version.last_error ELSE added.last_error END
    FROM unnest(
        %(model_ids)s::text[], %(requests)s::bigint[], %(items)s::bigint[], %(errors)s::bigint[],
        %(latency_seconds)s::float8[], %(last_ats)s::float8[], %(last_errors)s::text[],
        %(cache_hits)s::bigint[], %(cache_misses)s::bigint[]
    ) AS added(model_id, requests, items, errors, latency_seconds, last_at, last_error, cache_hits, cache_misses)
    WHERE version.model_id = added.model_id
"""  # noqa: S608 (the only name in it is the table's)


def record_usage(increments: Sequence[Usage]) -> None:
    """Adds the increments, at most one a model: one query."""
    if not increments:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            _COUNT,
            {
                "model_ids": [usage.model_id for usage in increments],
                "requests": [usage.requests for usage in increments],
                "items": [usage.items for usage in increments],
                "errors": [usage.errors for usage in increments],
                "latency_seconds": [usage.latency_seconds for usage in increments],
                "last_ats": [usage.last_at for usage in increments],
                "last_errors": [storable(usage.last_error) if usage.errors else "" for usage in increments],
                "cache_hits": [usage.cache_hits for usage in increments],
                "cache_misses": [usage.cache_misses for usage in increments],
            },
        )


_JUDGE = f"""
    UPDATE {_VERSIONS} AS version SET
        health_status = judged.status,
        health_reason = judged.reason,
        last_health_check_at = judged.at,
        heartbeat_at = greatest(version.heartbeat_at, to_timestamp(judged.heartbeat_at)),
        canary_at = coalesce(to_timestamp(judged.canary_at), version.canary_at),
        canary_ok = CASE WHEN judged.canary_at IS NULL THEN version.canary_ok ELSE judged.canary_ok END,
        canary_seconds = CASE WHEN judged.canary_at IS NULL THEN version.canary_seconds ELSE judged.canary_seconds END
    FROM unnest(
        %(model_ids)s::text[], %(statuses)s::text[], %(reasons)s::text[], %(ats)s::timestamptz[],
        %(heartbeat_ats)s::float8[], %(canary_ats)s::float8[], %(canary_oks)s::bool[], %(canary_seconds)s::float8[]
    ) AS judged(model_id, status, reason, at, heartbeat_at, canary_at, canary_ok, canary_seconds)
    WHERE version.model_id = judged.model_id AND version.status IN ('loaded', 'unloading')
"""  # noqa: S608 (the only name in it is the table's)


def record_health(reports: Sequence[HealthReport]) -> None:
    """What checks found of loaded models, at most one report a model: one query.

    A model that is not loaded any more is left as its last move made it.
    """
    if not reports:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            _JUDGE,
            {
                "model_ids": [report.model_id for report in reports],
                "statuses": [report.status for report in reports],
                "reasons": [storable(report.reason) for report in reports],
                "ats": [at_time(report.at) for report in reports],
                "heartbeat_ats": [report.heartbeat_at for report in reports],
                "canary_ats": [report.canary_at for report in reports],
                "canary_oks": [report.canary_ok for report in reports],
                "canary_seconds": [report.canary_seconds for report in reports],
            },
        )
