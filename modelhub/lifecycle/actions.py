"""What people and programs may ask for: load, unload, cancel. Everyone asks here: API, admin, commands, inference door.

A request is checked, written and enqueued in one transaction. It raises an error of `loaderd.errors` when
it is refused, and then nothing has changed.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.db import transaction
from django.utils import timezone
from django_q.models import OrmQ
from django_q.tasks import async_task

from loaderd import catalogue
from loaderd.client import LoaderClient
from loaderd.errors import ArtifactRefused, Cancelled, LoaderUnreachable, PermissionDenied, StateForbids, UnknownModel
from modelhub.conf import config
from modelhub.lifecycle.models import ACTIVE, Operation, OperationKind, OperationStatus
from modelhub.lifecycle.notifications import OPERATION_CHANNEL, notify, wait_for
from modelhub.lifecycle.observed import loader_view
from modelhub.registry.choices import DesiredState, Status
from modelhub.registry.models import ModelVersion

User: TypeAlias = AbstractBaseUser | AnonymousUser

DISPATCH = "modelhub.lifecycle.tasks.dispatch"
# How long a cancel waits for the process to end.
CANCEL_SECONDS = 5.0

_UNREAD = ("manifest", "config", "metadata", "performance_metrics", "signature")
_DESIRED = {OperationKind.LOAD: DesiredState.LOADED, OperationKind.UNLOAD: DesiredState.UNLOADED}


def request_load(version: ModelVersion, *, user: User | None, source: str, reason: str = "") -> Operation:
    """The operation that loads `version`: new, or the one that is under way, or ended at once when it is loaded.

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

    Raises PermissionDenied; StateForbids when it has ended or is an unload that began; LoaderUnreachable.
    """
    check_permission(user, OperationKind(operation.kind))
    if _cancel_queued(operation):
        return wait_for(operation.pk, 0.0)
    operation = (
        Operation.objects.select_related("version")
        .defer(*(f"version__{name}" for name in _UNREAD))
        .get(pk=operation.pk)
    )
    if operation.is_ended:
        raise StateForbids(f"The {operation.kind} of {operation.version} is over: it {operation.status}.")
    if operation.kind == OperationKind.UNLOAD:
        raise StateForbids(f"The unload of {operation.version} has begun; load the model again when it has ended.")
    if not LoaderClient(config().control_socket).cancel(str(operation.pk)).get("cancelled"):
        raise StateForbids(f"The {operation.kind} of {operation.version} is ending; nothing is left to cancel.")
    take_wish_back(operation, DesiredState.UNLOADED)
    return wait_for(operation.pk, CANCEL_SECONDS)


def check_permission(user: User | None, kind: OperationKind) -> None:
    """Raises PermissionDenied when the user may not ask for this. None is the system, which may."""
    permission = f"registry.{kind.value}_modelversion"
    if user is not None and not user.has_perm(permission):
        raise PermissionDenied(
            f"{user.get_username() or 'Nobody in particular'} may not {kind.value} models; an administrator can grant "
            f"the permission {permission}."
        )


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


def _request(kind: Any, version: ModelVersion, user: User | None, source: str, reason: str) -> Operation:
    # kind is an OperationKind; mypy takes the members of Django's enums for tuples.
    check_permission(user, kind)
    loader = loader_view()
    with transaction.atomic():
        # The row's lock puts requests for one model in an order; its columns are those that hold now.
        present = ModelVersion.objects.select_for_update(no_key=True).defer(*_UNREAD).filter(pk=version.pk).first()
        if present is None:
            raise UnknownModel(f"{version.model_id} is not registered any more.", model_id=version.model_id)
        if kind == OperationKind.LOAD:
            check_loadable(present)
        if not loader.reachable:
            raise LoaderUnreachable(
                f"loaderd is away ({loader.why_unreachable()}), so the {kind.value} of {present.model_id} was refused "
                "and nothing has changed; start it with `make up`, then repeat.",
                model_id=present.model_id,
            )
        active = list(Operation.objects.filter(version=present, status__in=ACTIVE).order_by("requested_at"))
        joined = _joined(kind, active)
        if joined is not None:
            joined.version = version
            return joined
        operation = Operation(
            kind=kind,
            version=version,
            requested_by=user,
            requested_by_name=user.get_username() if user is not None else "",
            reason=reason[:500],
            source=source,
            requested_at=timezone.now(),  # not the transaction's begin: that may lie before the wait for the lock
        )
        if present.desired_state != _DESIRED[kind]:
            ModelVersion.objects.filter(pk=present.pk).update(desired_state=_DESIRED[kind])
        result = None if active else _result_without_loaderd(kind, present)
        if result is not None:
            operation.status = OperationStatus.SUCCEEDED
            operation.started_at = operation.finished_at = operation.requested_at
            operation.progress = 1.0
            operation.result = result
        operation.save(force_insert=True)
        if result is None:
            # A task that failed (Postgres away) is delivered again; what succeeded is in the operation's row.
            args = (str(operation.pk), present.pk, present.desired_state)
            async_task(DISPATCH, *args, save=False, ack_failure=False)
    return operation


def _joined(kind: OperationKind, active: list[Operation]) -> Operation | None:
    """The operation of this kind that is under way: two loads are one. active: oldest first.

    Raises StateForbids when its opposite waits behind it: joining would end in the opposite of the wish.
    """
    same = next((operation for operation in active if operation.kind == kind), None)
    if same is not None and active[-1] is not same:
        raise StateForbids(
            f"A {same.kind} is under way and a {active[-1].kind} waits behind it; ask again when both have ended.",
            operation=str(active[-1].pk),
        )
    return same


def _result_without_loaderd(kind: OperationKind, version: ModelVersion) -> dict[str, Any] | None:
    """The result when the model is already as wished; None when loaderd has to act."""
    if kind == OperationKind.LOAD and version.status == Status.LOADED:
        return {
            "model_id": version.model_id,
            "status": "loaded",
            "load_seconds": version.last_load_seconds,
            "private_bytes": version.private_bytes,
            "gpu_bytes": version.gpu_bytes,
        }
    # A model in error goes to loaderd: it forgets the error.
    if kind == OperationKind.UNLOAD and version.status == Status.UNLOADED:
        return {"model_id": version.model_id, "status": "not_loaded"}
    return None


def _cancel_queued(operation: Operation) -> bool:
    """Whether it was still waiting in the queue, and is cancelled now."""
    error = Cancelled(f"The {operation.kind} was cancelled before it began.")
    with transaction.atomic():
        take_wish_back(
            operation, _wished_before(operation)
        )  # first: everyone locks a version's row before its operations'
        cancelled = Operation.objects.filter(pk=operation.pk, status=OperationStatus.QUEUED).update(
            status=OperationStatus.CANCELLED, finished_at=timezone.now(), error=error.to_message()
        )
        if cancelled:
            notify(OPERATION_CHANNEL, str(operation.pk))
        else:
            transaction.set_rollback(True)
    return bool(cancelled)


def _wished_before(operation: Operation) -> Any:
    """The desired state before a command that waits in the queue; that of a load is forgotten.

    A load that was cancelled shall not come back at loaderd's next start.
    """
    if operation.kind == OperationKind.UNLOAD:
        for queued in OrmQ.objects.iterator():
            task = queued.task
            if task["func"] == DISPATCH and task["args"][0] == str(operation.pk):
                return task["args"][2]
    return DesiredState.UNLOADED


def take_wish_back(operation: Operation, desired_before: Any) -> None:
    """Undoes what a command wished that was never carried out; the wish of another one under way counts."""
    version = ModelVersion.objects.filter(pk=operation.version_id)
    others = Operation.objects.filter(version=operation.version_id, status__in=ACTIVE).exclude(pk=operation.pk)
    other = others.order_by("-requested_at").first()
    if other is not None:
        desired_before = _DESIRED[OperationKind(other.kind)]
    elif operation.kind == OperationKind.UNLOAD:
        version = version.exclude(status=Status.UNLOADED)  # nothing was there to unload: its load was undone, too
    version.update(desired_state=desired_before)
