"""Writes what loaderd reported into the registry. The only writer of observed state; runs inside a transaction."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from django.db import connection
from django.db.models import F, FloatField, Value
from django.db.models.functions import Coalesce

from loaderd.errors import Cancelled
from loaderd.reporter import Heartbeat, OperationEnded, OperationProgress, StateReport, Usage
from loaderd.states import ModelState, sources_of
from modelhub.lifecycle.models import ACTIVE, LoaderStatus, Operation, OperationStatus, StateChange
from modelhub.lifecycle.notifications import OPERATION_CHANNEL, notify
from modelhub.registry.choices import HealthStatus, Status
from modelhub.registry.models import ModelVersion

LOADERD = "loaderd"

logger = logging.getLogger(__name__)


def at_time(unix_seconds: float) -> datetime:
    return datetime.fromtimestamp(unix_seconds, UTC)


def storable(value: Any) -> Any:
    """The JSON value without what Postgres refuses: NUL and lone surrogates (a dead process' log), NaN, infinity."""
    match value:
        case str():
            return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {storable(str(key)): storable(item) for key, item in value.items()}
        case list() | tuple():
            return [storable(item) for item in value]
    return value


def record_states(reports: Sequence[StateReport]) -> None:
    """Moves the versions, in order, and leaves a StateChange for each move."""
    if not reports:
        return
    names = sorted({report.model_id for report in reports})
    # Locked in one order, so that two writers do not wait for each other.
    rows = ModelVersion.objects.select_for_update(no_key=True).order_by("pk").only("model_id", "status")
    versions = {version.model_id: version for version in rows.filter(model_id__in=names)}
    operations = _operations_of(reports)
    changes = []
    for report in reports:
        version = versions.get(report.model_id)
        if version is None:
            logger.warning("%s is %s, and is not registered any more", report.model_id, report.state)
            continue
        changes.append(_move(version, report, operations))
    StateChange.objects.bulk_create(changes)


def _operations_of(reports: Sequence[StateReport]) -> dict[str, str]:
    """Who asked, by the id of the operation; without those whose row is gone."""
    wanted = {report.operation_id for report in reports if report.operation_id}
    if not wanted:
        return {}
    rows = Operation.objects.filter(pk__in=wanted).values_list("pk", "requested_by_name", "source")
    return {str(pk): name or source for pk, name, source in rows}


def _move(version: ModelVersion, report: StateReport, operations: Mapping[str, str]) -> StateChange:
    """Moves one version, whose row is locked: allowed moves by the table, others by force, and it says so."""
    before = version.status
    reason = storable(report.reason)
    if report.freed_bytes is not None:
        reason = f"{reason}; {report.freed_bytes / 2**20:.1f} MiB came back"
    row = ModelVersion.objects.filter(pk=version.pk)
    values = _observed(report, reason)
    if not row.filter(status__in=[source.value for source in sources_of(report.state)]).update(**values):
        logger.error("%s was %s in the registry and is %s in loaderd: corrected", report.model_id, before, report.state)
        reason = f"{reason} (corrected: the registry said {before})"
        row.update(**{**values, "status_reason": reason})
    version.status = report.state.value
    is_known = report.operation_id in operations
    return StateChange(
        version=version,
        from_state=before,
        to_state=report.state.value,
        reason=reason,
        actor=operations.get(report.operation_id or "", "") or LOADERD,
        operation_id=report.operation_id if is_known else None,
        at=at_time(report.at),
    )


def _observed(report: StateReport, reason: str) -> dict[str, Any]:
    at = at_time(report.at)
    runtime = report.runtime
    values: dict[str, Any] = {
        "status": report.state.value,
        "status_reason": reason,
        "status_changed_at": at,
        "observed_at": at,
        "pid": runtime.pid,
        "started_at": None if runtime.started_at is None else at_time(runtime.started_at),
        "phase": runtime.phase or "",
        "private_bytes": runtime.private_bytes,
        "pss_bytes": runtime.pss_bytes,
        "gpu_bytes": runtime.gpu_bytes,
    }
    match report.state:
        case ModelState.LOADED:
            seconds = report.load_seconds or 0.0
            values |= {
                "loaded_digest": report.digest or "",
                "signature": storable(report.signature),
                "last_loaded_at": at,
                "load_count": F("load_count") + 1,
                "load_seconds_total": F("load_seconds_total") + Value(seconds, output_field=FloatField()),
                "last_load_seconds": seconds,
                "peak_private_bytes": runtime.private_bytes,
                # The warm-up answered.
                "health_status": HealthStatus.HEALTHY,
                "last_health_check_at": at,
            }
        case ModelState.UNLOADED:
            values |= {"loaded_digest": "", "health_status": HealthStatus.UNKNOWN}
        case ModelState.ERROR:
            message = (report.error or {}).get("message") or reason
            values |= {
                "loaded_digest": "",
                "health_status": HealthStatus.UNHEALTHY,
                "error_count": F("error_count") + 1,
                "last_error": storable(message),
            }
    return values


def record_ended(reports: Iterable[OperationEnded]) -> None:
    """Ends operations and wakes who waits for them, at commit."""
    for report in reports:
        error = storable(report.error)
        if (report.result or {}).get("status") == "not_loaded":
            _forget_error(report)
        if error is None:
            values: dict[str, Any] = {
                "status": OperationStatus.SUCCEEDED,
                "result": storable(report.result),
                "progress": 1.0,
            }
        elif error.get("code") == Cancelled.code:
            values = {"status": OperationStatus.CANCELLED, "error": error}
        else:
            values = {"status": OperationStatus.FAILED, "error": error}
        active = Operation.objects.filter(pk=report.operation_id, status__in=ACTIVE)
        if active.update(finished_at=at_time(report.at), **values):
            notify(OPERATION_CHANNEL, report.operation_id)
        else:
            logger.warning("operation %s ended in loaderd after it had ended in the registry", report.operation_id)


def _forget_error(report: OperationEnded) -> None:
    """An unload clears an error also when it is older than the daemon, which then does not know of it."""
    in_error = ModelVersion.objects.filter(operations__pk=report.operation_id, status=Status.ERROR)
    for model_id in in_error.values_list("model_id", flat=True):
        record_states(
            [StateReport(model_id, ModelState.UNLOADED, "the error was put aside", report.at, report.operation_id)]
        )


def record_progress(reports: Iterable[OperationProgress]) -> None:
    for report in reports:
        at, phase = at_time(report.at), report.phase.value
        loading = ModelVersion.objects.filter(model_id=report.model_id, status=Status.LOADING)
        loading.update(phase=phase, observed_at=at)
        Operation.objects.filter(pk=report.operation_id, status__in=ACTIVE).update(
            status=OperationStatus.RUNNING,
            phase=phase,
            progress=min(max(report.progress, 0.0), 1.0),
            started_at=Coalesce("started_at", at),
        )


_VERSIONS = ModelVersion._meta.db_table

_OBSERVE = f"""
    UPDATE {_VERSIONS} AS version SET
        observed_at = %(at)s,
        pid = seen.pid,
        started_at = to_timestamp(seen.started_at),
        phase = coalesce(seen.phase, ''),
        private_bytes = coalesce(seen.private_bytes, version.private_bytes),
        pss_bytes = coalesce(seen.pss_bytes, version.pss_bytes),
        gpu_bytes = seen.gpu_bytes,
        peak_private_bytes = greatest(version.peak_private_bytes, seen.private_bytes)
    FROM unnest(
        %(model_ids)s::text[], %(pids)s::int[], %(started_ats)s::float8[], %(phases)s::text[],
        %(private_bytes)s::bigint[], %(pss_bytes)s::bigint[], %(gpu_bytes)s::bigint[]
    ) AS seen(model_id, pid, started_at, phase, private_bytes, pss_bytes, gpu_bytes)
    WHERE version.model_id = seen.model_id
        AND version.status IN ('loading', 'loaded', 'unloading')
        AND version.status_changed_at <= %(at)s
"""  # noqa: S608 (the only name in it is the table's)


def record_heartbeat(heartbeat: Heartbeat) -> None:
    """The daemon's row and what it saw of its models: two queries, however many they are.

    A model that moved after the heartbeat was made is left as it is.
    """
    facts = storable(heartbeat.facts)
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
        last_used_at = greatest(version.last_used_at, to_timestamp(added.last_at)),
        last_error = CASE WHEN added.last_error = '' THEN version.last_error ELSE added.last_error END
    FROM unnest(
        %(model_ids)s::text[], %(requests)s::bigint[], %(items)s::bigint[], %(errors)s::bigint[],
        %(latency_seconds)s::float8[], %(last_ats)s::float8[], %(last_errors)s::text[]
    ) AS added(model_id, requests, items, errors, latency_seconds, last_at, last_error)
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
            },
        )
