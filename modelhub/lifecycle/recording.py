"""Writes what loaderd reported into the registry: moves of models, ends of operations. Runs inside a transaction.

With `alias_moves.py` and `observations.py` the only writer of observed state.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import F, FloatField, Value
from django.db.models.functions import Coalesce, Greatest

from loaderd.errors import Cancelled, InsufficientMemory, LoaderdError
from loaderd.reporter import OperationEnded, OperationProgress, StateReport
from loaderd.states import ModelState, sources_of
from modelhub.actors import LOADERD, named
from modelhub.lifecycle.alias_moves import make_first_live
from modelhub.lifecycle.models import ACTIVE, Operation, OperationKind, OperationStatus, StateChange
from modelhub.lifecycle.notifications import OPERATION_CHANNEL, notify
from modelhub.lifecycle.observed import loader_view
from modelhub.lifecycle.storable import at_time, storable
from modelhub.lifecycle.wishes import (
    SWITCHING_KINDS,
    end_wishes,
    take_switch_back,
    take_wish_back,
    wished_before,
)
from modelhub.registry.choices import HealthStatus, Status
from modelhub.registry.models import ModelVersion

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Asked:
    """Of an operation: who asked for what."""

    actor: str
    kind: str


def record_states(reports: Sequence[StateReport], unwished: set[int] | None = None) -> None:
    """Moves the versions, in order, and leaves a StateChange for each move.

    unwished: gets the versions (primary keys) that nobody wishes loaded any more, for `record_ended`.
    """
    if not reports:
        return
    unwished = set() if unwished is None else unwished
    names = sorted({report.model_id for report in reports})
    # Locked in one order, so that two writers do not wait for each other.
    rows = ModelVersion.objects.select_for_update(no_key=True).order_by("pk")
    rows = rows.only("model_id", "lineage_id", "status", "measured_digest", "measured_device", "measured_as")
    versions = {version.model_id: version for version in rows.filter(model_id__in=names)}
    operations = _operations_of(reports)
    device = loader_view().device if any(report.peak_bytes is not None for report in reports) else ""
    changes: list[StateChange] = []
    first: list[StateChange] = []
    for report in reports:
        version = versions.get(report.model_id)
        if version is None:
            logger.warning("%s is %s, and is not registered any more", report.model_id, report.state)
            continue
        asked = operations.get(report.operation_id or "")
        if report.ends_wish:
            unwished.add(version.pk)
        if version.status == report.state and (report.state in _TOLD_AGAIN or report.is_no_move):
            _tell_more(version, report)
            continue
        changes.append(_move(version, report, asked, device))
        if not report.ends_wish and asked is not None and report.state == ModelState.LOADING:
            unwished.discard(version.pk)  # asked for again since
        # An activation moves the alias itself, or leaves it as it was.
        if report.state == ModelState.LOADED and (asked is None or asked.kind not in SWITCHING_KINDS):
            first.append(changes[-1])
    StateChange.objects.bulk_create(changes)
    make_first_live(first)


# Reported again while the state stays what it is: what a load waits for; that nobody wishes an unloaded model any more.
_TOLD_AGAIN = frozenset({ModelState.LOADING, ModelState.UNLOADED})


def _tell_more(version: ModelVersion, report: StateReport) -> None:
    """Writes the newest reason; no move, so no StateChange."""
    at = at_time(report.at)
    values = {"status_reason": storable(report.reason), "phase": report.runtime.phase or "", "observed_at": at}
    ModelVersion.objects.filter(pk=version.pk).update(**values)


def lock_versions(model_ids: Iterable[str]) -> None:
    """Locks the rows in one order, so that two writers do not wait for each other."""
    rows = ModelVersion.objects.select_for_update(no_key=True).order_by("pk")
    list(rows.filter(model_id__in=set(model_ids)).values_list("pk"))


def _operations_of(reports: Sequence[StateReport]) -> dict[str, _Asked]:
    """By the id of the operation; without those whose row is gone."""
    wanted = {report.operation_id for report in reports if report.operation_id}
    if not wanted:
        return {}
    rows = Operation.objects.filter(pk__in=wanted).values_list("pk", "requested_by_name", "source", "kind")
    return {str(pk): _Asked(named(name, source), kind) for pk, name, source, kind in rows}


def _move(version: ModelVersion, report: StateReport, asked: _Asked | None, device: str) -> StateChange:
    """Moves one version, whose row is locked: allowed moves by the table, others by force, and it says so."""
    before = version.status
    reason = storable(report.reason)
    if report.freed_bytes is not None:
        reason = f"{reason}; {report.freed_bytes / 2**20:.1f} MiB came back"
    row = ModelVersion.objects.filter(pk=version.pk)
    values = _observed(report, reason) | _measured(version, report, device)
    if not row.filter(status__in=[source.value for source in sources_of(report.state)]).update(**values):
        logger.error("%s was %s in the registry and is %s in loaderd: corrected", report.model_id, before, report.state)
        reason = f"{reason} (corrected: the registry said {before})"
        row.update(**{**values, "status_reason": reason})
    version.status = report.state.value
    return StateChange(
        version=version,
        from_state=before,
        to_state=report.state.value,
        reason=reason,
        actor=LOADERD if asked is None else asked.actor,
        operation_id=report.operation_id if asked is not None else None,
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
        "status_cause": report.cause[:16],
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
                # The warm-up answered, and the canary with it.
                "health_status": HealthStatus.HEALTHY,
                "health_reason": "",
                "last_health_check_at": at,
                "heartbeat_at": at,
            }
            if report.canary is not None:
                values |= {"canary": storable(report.canary), "canary_digest": report.digest or ""}
        case ModelState.UNLOADED:
            values |= {"loaded_digest": "", "health_status": HealthStatus.UNKNOWN, "health_reason": ""}
        case ModelState.ERROR:
            message = (report.error or {}).get("message") or reason
            values |= {
                "loaded_digest": "",
                "health_status": HealthStatus.UNHEALTHY,
                "health_reason": reason,
                "error_count": F("error_count") + 1,
                "last_error": storable(message),
            }
    return values


def _measured(version: ModelVersion, report: StateReport, device: str) -> dict[str, Any]:
    """What this load says of the next one's needs; heartbeats add what is held while it serves."""
    if report.state != ModelState.LOADED or report.peak_bytes is None or not report.digest:
        return {}
    before = version.measured_digest, version.measured_device, version.measured_as
    is_as_before = before == (report.digest, device, report.measured_as)
    version.measured_digest, version.measured_device, version.measured_as = report.digest, device, report.measured_as
    held = {"resident": report.runtime.private_bytes, "gpu": report.runtime.gpu_bytes}
    return {
        "measured_digest": report.digest,
        "measured_device": device,
        "measured_as": report.measured_as,
        "measured_peak_bytes": report.peak_bytes,
        **{
            # Postgres' greatest() passes over nulls.
            f"measured_{name}_bytes": Greatest(F(f"measured_{name}_bytes"), Value(count)) if is_as_before else count
            for name, count in held.items()
            if count is not None or not is_as_before
        },
    }


def record_ended(reports: Sequence[OperationEnded], unwished: Iterable[int] = ()) -> None:
    """Ends operations and wakes who waits for them, at commit. What a failed one wished is put back.

    unwished: what the moves written before found that nobody wishes loaded any more. That is decided here, because
    a command that ends with this very batch is not under way.
    """
    operations = _begun(report.operation_id for report in reports)
    undone = [
        operations[report.operation_id]
        for report in reports
        if report.operation_id in operations and _ends_its_wish(operations[report.operation_id], report)
    ]
    # Everyone locks versions before operations.
    wished = {operation.version_id for operation in undone}
    if wished:
        rows = ModelVersion.objects.select_for_update(no_key=True).order_by("pk")
        list(rows.filter(pk__in=wished).values_list("pk"))
    ended = {report.operation_id for report in reports if _end(report)}
    end_wishes(unwished)
    for operation in undone:
        if str(operation.pk) not in ended:
            continue
        if operation.kind in SWITCHING_KINDS:
            take_switch_back(operation)
        else:
            take_wish_back(operation, wished_before(operation))


def _begun(ids: Iterable[str]) -> dict[str, Operation]:
    wanted = set(ids)
    if not wanted:
        return {}
    rows = Operation.objects.filter(pk__in=wanted).only("kind", "version_id", "parameters", "requested_at")
    return {str(operation.pk): operation for operation in rows}


def _ends_its_wish(operation: Operation, report: OperationEnded) -> bool:
    """Whether the end leaves everything as if nobody had asked: a refused or cancelled load, a failed activation."""
    if report.error is None:
        return False
    if operation.kind in SWITCHING_KINDS:
        return True
    return operation.kind == OperationKind.LOAD and (_is(report, InsufficientMemory) or _is(report, Cancelled))


def _is(report: OperationEnded, error: type[LoaderdError]) -> bool:
    return (report.error or {}).get("code") == error.code


def _end(report: OperationEnded) -> bool:
    """Whether the operation had not ended before."""
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
    if not active.update(finished_at=at_time(report.at), **values):
        logger.warning("operation %s ended in loaderd after it had ended in the registry", report.operation_id)
        return False
    notify(OPERATION_CHANNEL, report.operation_id)
    return True


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
