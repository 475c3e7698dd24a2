"""An operation followed in place: its phases while it runs, then what came of it, what to do next, and the way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.http import require_POST

from loaderd.errors import LoaderdError
from loaderd.states import LoadPhase
from modelhub.console.advice import advice_for
from modelhub.console.dashboard.snapshot import dashboard
from modelhub.console.fragments import fragment
from modelhub.console.templatetags.console import seconds, size
from modelhub.lifecycle.actions import cancel
from modelhub.lifecycle.models import Operation, OperationKind, OperationStatus
from modelhub.lifecycle.permissions import ACTIVATE, LOAD, UNLOAD
from modelhub.registry.models import large_columns

TEMPLATE = "console/operation/progress.html"
STOP_POLLING = 286  # htmx: swap this answer, and ask no more

_LOAD_PHASES = (
    LoadPhase.QUEUED,
    LoadPhase.STARTING,
    LoadPhase.VERIFYING,
    LoadPhase.LOADING,
    LoadPhase.WARMING_UP,
    LoadPhase.CHECKING,
)
_PHASES: Mapping[str, Sequence[LoadPhase]] = {
    OperationKind.LOAD: _LOAD_PHASES,
    OperationKind.ACTIVATE: (*_LOAD_PHASES, LoadPhase.SWITCHING),
    OperationKind.ROLLBACK: (*_LOAD_PHASES, LoadPhase.SWITCHING),
}
_WORDS = {
    LoadPhase.QUEUED: "waits for its turn and its memory",
    LoadPhase.STARTING: "starts a process",
    LoadPhase.VERIFYING: "compares the files with what was registered",
    LoadPhase.LOADING: "reads the model",
    LoadPhase.WARMING_UP: "warms up",
    LoadPhase.CHECKING: "compares its answer with the recorded one",
    LoadPhase.SWITCHING: "takes over, and the old version finishes its requests",
    LoadPhase.SERVING: "answers",
}


@dataclass(frozen=True, slots=True)
class Step:
    """A phase of the operation and where it stands: done, now, or to come."""

    words: str
    stands: str


@dataclass(frozen=True, slots=True)
class Way:
    """Where a person can go from here. dialog: the address is that of a dialog."""

    title: str
    url: str
    dialog: bool = True


@dataclass(frozen=True, slots=True)
class Followed:
    """An operation as a page tells it."""

    operation: Operation
    steps: Sequence[Step]
    may_cancel: bool
    outcome: Sequence[str] = ()
    advice: str = ""
    log_tail: Sequence[str] = ()
    ways: Sequence[Way] = field(default_factory=tuple)

    @property
    def tone(self) -> str:
        tones = {OperationStatus.SUCCEEDED: "good", OperationStatus.FAILED: "bad", OperationStatus.CANCELLED: "warn"}
        return tones.get(OperationStatus(self.operation.status), "info")


def followed(operation: Operation, user: Any) -> Followed:
    """What a page says of it to this user. No query but those of permissions."""
    error = operation.error or {}
    facts = error.get("facts") or {}
    tail = facts.get("log_tail") or []
    return Followed(
        operation=operation,
        steps=_steps(operation),
        may_cancel=_may_cancel(operation, user),
        outcome=_outcome(operation),
        advice=advice_for(error, operation.version.model_id if operation.version else "") if error else "",
        log_tail=tail if isinstance(tail, list) else str(tail).splitlines(),
        ways=_ways(operation, user),
    )


def progress(request: HttpRequest, operation: Operation) -> HttpResponse:
    """The dialog's content that follows an operation until its end."""
    context = {"followed": followed(operation, request.user)}
    rendered = fragment(request, TEMPLATE, context)
    return render(request, "console/operation/dialog.html", {**context, "live": rendered})


def live(request: HttpRequest, pk: UUID) -> HttpResponse:
    """The fragment of an operation; asks to be asked no more when it has ended."""
    if not request.user.has_perm("lifecycle.view_operation"):
        return HttpResponse(status=403)
    operation = _read(pk)
    rendered = fragment(request, TEMPLATE, {"followed": followed(operation, request.user)})
    if not operation.is_ended:
        seen = request.GET.get("seen", "")
        is_known = bool(seen) and rendered.startswith(f'<div data-mh-digest="{seen}">')
        response = HttpResponse("" if is_known else rendered, status=204 if is_known else 200)
    else:
        dashboard.forget()
        response = HttpResponse(rendered, status=STOP_POLLING)
        response.headers["HX-Trigger"] = "mh:changed"
    response.headers["Cache-Control"] = "no-store"
    return response


@require_POST
def cancel_view(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Cancels, and answers the fragment with what became of it."""
    operation = _read(pk)
    told = ""
    try:
        operation = cancel(operation, user=request.user)
    except LoaderdError as error:
        told = error.message
    operation = _read(pk)
    context = {"followed": followed(operation, request.user), "told": told}
    return HttpResponse(fragment(request, TEMPLATE, context), status=STOP_POLLING if operation.is_ended else 200)


def _read(pk: UUID) -> Operation:
    operations = Operation.objects.select_related("version__lineage").defer(*large_columns("version"))
    found: Operation = get_object_or_404(operations, pk=pk)
    return found


def _steps(operation: Operation) -> list[Step]:
    phases = _PHASES.get(operation.kind, ())
    if operation.status == OperationStatus.SUCCEEDED:
        return [Step(_WORDS[phase], "done") for phase in phases]
    known = [phase.value for phase in phases]
    at = known.index(operation.phase) if operation.phase in known else (-1 if not operation.started_at else 0)
    stopped = "failed" if operation.is_ended else "now"
    return [
        Step(_WORDS[phase], "done" if number < at else stopped if number == at else "to come")
        for number, phase in enumerate(phases)
    ]


def _outcome(operation: Operation) -> list[str]:
    """What came of it, in sentences made of what was measured."""
    if operation.status == OperationStatus.FAILED:
        return [str((operation.error or {}).get("message") or "It failed, and nothing says why; see loaderd's log.")]
    if operation.status == OperationStatus.CANCELLED:
        return ["It was cancelled; nothing was changed."]
    if operation.status != OperationStatus.SUCCEEDED:
        return []
    result = operation.result or {}
    told = []
    match operation.kind:
        case OperationKind.LOAD:
            told.append(
                f"Loaded in {seconds(result.get('load_seconds'))}; it holds {size(result.get('private_bytes'))}."
            )
        case OperationKind.UNLOAD if result.get("status") == "not_loaded":
            told.append("It was not loaded, so there was nothing to unload.")
        case OperationKind.UNLOAD:
            told.append(f"{size(result.get('freed_bytes'))} came back.")
        case OperationKind.ACTIVATE | OperationKind.ROLLBACK:
            before = result.get("previous")
            told.append("It is live" + (f" in place of {before}." if before else "."))
            if result.get("gap_seconds") is not None:
                told.append(f"Nobody answered for {seconds(result['gap_seconds'])}.")
            if result.get("freed_bytes") is not None:
                told.append(f"{size(result['freed_bytes'])} of the old version came back.")
        case OperationKind.OPTIMIZE:
            unloaded = result.get("unloaded") or []
            told.append(f"{size(result.get('freed_bytes') or 0)} came back from {len(unloaded)} models.")
            told += [f"{entry['model_id']}: {entry['reason']}" for entry in unloaded]
    return told


def _may_cancel(operation: Operation, user: Any) -> bool:
    if operation.is_ended:
        return False
    if operation.kind in (OperationKind.UNLOAD, OperationKind.OPTIMIZE) and operation.started_at is not None:
        return False
    needed = {OperationKind.LOAD: LOAD, OperationKind.ACTIVATE: ACTIVATE, OperationKind.ROLLBACK: ACTIVATE}
    return bool(user.has_perm(needed.get(OperationKind(operation.kind), UNLOAD)))


def _ways(operation: Operation, user: Any) -> list[Way]:
    """Back, where there is a way back; else to try again, and to the model."""
    version = operation.version
    if version is None or not operation.is_ended:
        return []

    def way(title: str, command: str, pk: int) -> Way:
        return Way(title, reverse(f"admin:registry_modelversion_{command}", args=[pk]))

    found: list[Way] = []
    if operation.status == OperationStatus.SUCCEEDED:
        match operation.kind:
            case OperationKind.LOAD if user.has_perm(UNLOAD):
                found.append(way("Undo: unload", "unload", version.pk))
            case OperationKind.UNLOAD if user.has_perm(LOAD):
                found.append(way("Undo: load again", "load", version.pk))
            case OperationKind.ACTIVATE | OperationKind.ROLLBACK if user.has_perm(ACTIVATE):
                if (operation.result or {}).get("previous"):
                    found.append(
                        Way("Undo: roll back", reverse("admin:registry_model_rollback", args=[version.lineage_id]))
                    )
    elif operation.kind in (OperationKind.LOAD, OperationKind.ACTIVATE) and user.has_perm(
        LOAD if operation.kind == OperationKind.LOAD else ACTIVATE
    ):
        found.append(way("Try again", str(operation.kind), version.pk))
    page = reverse("admin:registry_modelversion_change", args=[version.pk])
    return [*found, Way(f"To {version.model_id}", page, dialog=False)]
