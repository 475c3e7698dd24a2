"""What commands wish of a model, and how a wish that came to nothing is put back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from modelhub.lifecycle.models import ACTIVE, LineageChange, Operation, OperationKind
from modelhub.registry.choices import DesiredState, Status
from modelhub.registry.models import ModelVersion

# What each kind of command wishes of its version; an optimisation has none.
DESIRED: dict[Any, Any] = {
    OperationKind.LOAD: DesiredState.LOADED,
    OperationKind.UNLOAD: DesiredState.UNLOADED,
    OperationKind.ACTIVATE: DesiredState.LOADED,
    OperationKind.ROLLBACK: DesiredState.LOADED,
}
LOADING_KINDS: tuple[Any, ...] = (OperationKind.LOAD, OperationKind.ACTIVATE, OperationKind.ROLLBACK)
SWITCHING_KINDS: tuple[Any, ...] = (OperationKind.ACTIVATE, OperationKind.ROLLBACK)


# In an operation's parameters: somebody cancelled it and was not refused. loaderd's word that it ended may be missing.
CANCEL_REQUESTED = "cancel_requested"


def wished_before(operation: Operation) -> Any:
    """The desired state that the command found."""
    return operation.parameters.get("desired_before", DesiredState.UNLOADED)


def take_wish_back(operation: Operation, desired_before: Any) -> None:
    """Undoes what a command wished that was never carried out; the wish of another one under way counts."""
    if operation.version_id is None:
        return
    version = ModelVersion.objects.filter(pk=operation.version_id)
    others = Operation.objects.filter(version=operation.version_id, status__in=ACTIVE).exclude(pk=operation.pk)
    other = others.order_by("-requested_at").first()
    if other is not None:
        desired_before = DESIRED[OperationKind(other.kind)]
    elif operation.kind == OperationKind.UNLOAD:
        version = version.exclude(status=Status.UNLOADED)  # nothing was there to unload: its load was undone, too
    version.update(desired_state=desired_before)


def take_switch_back(operation: Operation) -> None:
    """Undoes the wish of an activation or rollback that failed before the alias moved.

    The live version stays wished throughout, in a gap too, so nothing of it is to be put back.
    """
    if not has_moved(operation):
        take_wish_back(operation, wished_before(operation))


def has_moved(operation: Operation) -> bool:
    """Whether the alias that an activation or rollback is about was moved by it."""
    return LineageChange.objects.filter(operation=operation.pk).exists()


def end_wishes(version_ids: Iterable[int]) -> None:
    """Nobody wishes these versions loaded any more, but those whose load or activation is under way."""
    ending = set(version_ids)
    if not ending:
        return
    asked_for = Operation.objects.filter(version__in=ending, status__in=ACTIVE, kind__in=LOADING_KINDS)
    ending -= set(asked_for.values_list("version", flat=True))
    ModelVersion.objects.filter(pk__in=ending).update(desired_state=DesiredState.UNLOADED)
