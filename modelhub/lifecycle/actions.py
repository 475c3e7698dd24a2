"""What people and programs may ask for: load, unload, cancel. Everyone asks here: API, admin, commands, inference door.

Activations and rollbacks are in `versions.py`, optimisations in `optimising.py`; they share what is here.

A request is checked, written and enqueued in one transaction. It raises an error of `loaderd.errors` when
it is refused, and then nothing has changed.
"""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.utils import timezone
from django_q.tasks import async_task

from loaderd import catalogue
from loaderd.client import LoaderClient
from loaderd.errors import ArtifactRefused, Cancelled, LoaderUnreachable, StateForbids, UnknownModel
from modelhub.conf import config
from modelhub.lifecycle.models import ACTIVE, Operation, OperationKind, OperationStatus
from modelhub.lifecycle.notifications import OPERATION_CHANNEL, notify, wait_for
from modelhub.lifecycle.observed import loader_view
from modelhub.lifecycle.permissions import User, check_permission
from modelhub.lifecycle.storable import storable
from modelhub.lifecycle.wishes import CANCEL_REQUESTED, DESIRED, take_wish_back, wished_before
from modelhub.registry.choices import DesiredState, Status
from modelhub.registry.models import ModelVersion, large_columns

DISPATCH = "modelhub.lifecycle.tasks.dispatch"
# How long a cancel waits for the process to end.
CANCEL_SECONDS = 5.0


def request_load(version: ModelVersion, *, user: User | None, source: str, reason: str = "") -> Operation:
    """The operation that loads `version`: new, or the one that is under way, or ended at once when it is loaded: then
    its result says "was_loaded", and "load_seconds" is of the load that was.

    user: who asks; None is the system, which may do everything. source: api, admin, command, inference or
    reconcile. Raises PermissionDenied, UnknownModel, ArtifactRefused, UnknownFramework, StateForbids,
    LoaderUnreachable.
    """
    return _request(OperationKind.LOAD, version, user, source, reason)


def request_unload(version: ModelVersion, *, user: User | None, source: str, reason: str = "") -> Operation:
    """As request_load; the result of an unload of what is not loaded says {"status": "not_loaded"}."""
    return _request(OperationKind.UNLOAD, version, user, source, reason)


def cancel(operation: Operation, *, user: User | None) -> Operation:
    """The operation after its cancelling; one that was handed to loaderd may take a moment to end.

    Raises PermissionDenied; StateForbids when it has ended, or is an unload or an optimisation that began;
    LoaderUnreachable.
    """
    check_permission(user, OperationKind(operation.kind))
    if _cancel_queued(operation):
        return wait_for(operation.pk, 0.0)
    operation = Operation.objects.select_related("version").defer(*large_columns("version")).get(pk=operation.pk)
    if operation.is_ended:
        raise StateForbids(f"The {operation.what} is over: it {operation.status}.")
    if operation.kind == OperationKind.UNLOAD:
        raise StateForbids(f"The {operation.what} has begun; load the model again when it has ended.")
    if operation.kind == OperationKind.OPTIMIZE:
        raise StateForbids(f"The {operation.what} has begun; load what is missed again when it has ended.")
    # Before loaderd hears of it: a daemon that is killed at this moment must not leave the wish behind.
    _note_cancel(operation, True)
    if not LoaderClient(config().control_socket).cancel(str(operation.pk)).get("cancelled"):
        _note_cancel(operation, False)
        raise StateForbids(f"The {operation.what} is ending; nothing is left to cancel.")
    # Its wish is put back when loaderd reports that it was cancelled: it may be loaded in this very moment.
    return wait_for(operation.pk, CANCEL_SECONDS)


def _note_cancel(operation: Operation, is_requested: bool) -> None:
    """For the takeover: a load or activation that its daemon did not end is then cancelled, and has not failed."""
    parameters = {name: value for name, value in operation.parameters.items() if name != CANCEL_REQUESTED}
    if is_requested:
        parameters[CANCEL_REQUESTED] = True
    Operation.objects.filter(pk=operation.pk, status__in=ACTIVE).update(parameters=parameters)


def check_loadable(version: ModelVersion) -> None:
    """Raises StateForbids, ArtifactRefused or UnknownFramework when this artifact may not be loaded."""
    model_id = version.model_id
    if version.missing_since is not None:
        raise StateForbids(
            f"{model_id} is not in the store any more; put its directory back and run `manage.py discover`.",
            model_id=model_id,
        )
    if version.refusal:
        raise ArtifactRefused(f"{model_id} may not be loaded. {version.refusal}", model_id=model_id)
    if catalogue.format_executes_code(version.framework, version.artifact_format) and not version.is_approved:
        raise ArtifactRefused(
            f"{model_id} is a {version.artifact_format}, which can run any code when it is loaded; if you trust these "
            f"bytes: `manage.py approve {model_id}`, or POST /api/models/{model_id}/approve.",
            model_id=model_id,
            digest=version.digest,
        )


def check_reachable(what: str, **facts: Any) -> None:
    """Raises LoaderUnreachable, which says that `what` was refused, while loaderd is away. One query."""
    loader = loader_view()
    if not loader.reachable:
        is_silent = loader.stopped_at is None and loader.observed_at is not None
        advice = (
            f"its process ({loader.pid}) has died, which `make up` mends by itself, or hangs: see its log"
            if is_silent
            else "start it with `make up`"
        )
        raise LoaderUnreachable(
            f"loaderd is away ({loader.why_unreachable()}), so {what} was refused and nothing has changed; {advice}, "
            "then repeat.",
            **facts,
        )


def locked(version: ModelVersion) -> ModelVersion:
    """The version as it stands now, its row locked: requests for one model come in an order.

    To be called in a transaction. Raises UnknownModel when it was deleted.
    """
    present = ModelVersion.objects.select_for_update(no_key=True).defer(*large_columns()).filter(pk=version.pk).first()
    if present is None:
        raise UnknownModel(f"{version.model_id} is not registered any more.", model_id=version.model_id)
    return present


def new_operation(
    kind: Any, version: ModelVersion | None, user: User | None, source: str, reason: str, parameters: dict[str, Any]
) -> Operation:
    # kind is an OperationKind; mypy takes the members of Django's enums for tuples.
    return Operation(
        kind=kind,
        version=version,
        parameters=parameters,
        requested_by=user,
        requested_by_name=user.get_username() if user is not None else "",
        reason=storable(reason)[:500],
        source=source,
        requested_at=timezone.now(),  # not the transaction's begin: that may lie before the wait for a lock
    )


def enqueue(operation: Operation, result: dict[str, Any] | None = None) -> Operation:
    """Writes the operation and its task, in the caller's transaction; one that has its result ends at once."""
    if result is not None:
        operation.status = OperationStatus.SUCCEEDED
        operation.started_at = operation.finished_at = operation.requested_at
        operation.progress = 1.0
        operation.result = result
    operation.save(force_insert=True)
    if result is None:
        # A task that failed (Postgres away) is delivered again; what succeeded is in the operation's row.
        async_task(DISPATCH, str(operation.pk), save=False, ack_failure=False)
    return operation


def _request(kind: Any, version: ModelVersion, user: User | None, source: str, reason: str) -> Operation:
    check_permission(user, kind)
    with transaction.atomic():
        present = locked(version)
        if kind == OperationKind.LOAD:
            check_loadable(present)
        check_reachable(f"the {kind.value} of {present.model_id}", model_id=present.model_id)
        active = list(Operation.objects.filter(version=present, status__in=ACTIVE).order_by("requested_at"))
        joined = _joined(kind, active)
        if joined is not None:
            joined.version = version
            return joined
        operation = new_operation(kind, version, user, source, reason, {"desired_before": str(present.desired_state)})
        if present.desired_state != DESIRED[kind]:
            ModelVersion.objects.filter(pk=present.pk).update(desired_state=DESIRED[kind])
        return enqueue(operation, None if active else _result_without_loaderd(kind, present))


def _joined(kind: OperationKind, active: list[Operation]) -> Operation | None:
    """The operation of this kind that is under way: two loads are one. active: oldest first.

    Raises StateForbids when its opposite waits behind it: joining would end in the opposite of the wish.
    """
    position = next((position for position, operation in enumerate(active) if operation.kind == kind), None)
    if position is None:
        return None
    for behind in active[position:]:
        if DESIRED[OperationKind(behind.kind)] != DESIRED[kind]:
            raise StateForbids(
                f"A {kind.value} is under way and a {behind.kind} waits behind it; ask again when both have ended.",
                operation=str(behind.pk),
            )
    return active[position]


def _result_without_loaderd(kind: OperationKind, version: ModelVersion) -> dict[str, Any] | None:
    """The result when the model is already as wished; None when loaderd has to act."""
    if kind == OperationKind.LOAD and version.status == Status.LOADED:
        return {
            "model_id": version.model_id,
            "status": "loaded",
            "was_loaded": True,
            "load_seconds": version.last_load_seconds,
            "private_bytes": version.private_bytes,
            "gpu_bytes": version.gpu_bytes,
        }
    # A model in error goes to loaderd: it forgets the error. So does one that is wished: loaderd may be about to
    # load it, as at its start or in an activation's gap, and has not reported it yet.
    is_unwished = version.desired_state == DesiredState.UNLOADED
    if kind == OperationKind.UNLOAD and is_unwished and version.status == Status.UNLOADED:
        return {"model_id": version.model_id, "status": "not_loaded"}
    return None


def _cancel_queued(operation: Operation) -> bool:
    """Whether it was still waiting in the queue, and is cancelled now."""
    error = Cancelled(f"The {operation.what} was cancelled before it began.")
    with transaction.atomic():
        # First: everyone locks a version's row before its operations', and decides what is wished while he holds it.
        list(ModelVersion.objects.select_for_update(no_key=True).filter(pk=operation.version_id).values_list("pk"))
        take_wish_back(operation, wished_before(operation))
        cancelled = Operation.objects.filter(pk=operation.pk, status=OperationStatus.QUEUED).update(
            status=OperationStatus.CANCELLED, finished_at=timezone.now(), error=error.to_message()
        )
        if cancelled:
            notify(OPERATION_CHANNEL, str(operation.pk))
        else:
            transaction.set_rollback(True)
    return bool(cancelled)
