"""An operation followed in place: its phases while it runs, then what came of it, what to do next, and the way back."""

from __future__ import annotations

import base64
import binascii
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.http import urlencode
from django.views.decorators.http import require_POST, require_safe

from loaderd.errors import LoaderdError
from loaderd.rules import LIVE
from loaderd.states import LoadPhase
from modelhub.console.advice import Way, advice_for, ways_after
from modelhub.console.dashboard.snapshot import dashboard
from modelhub.console.fragments import fragment
from modelhub.console.site import counts
from modelhub.console.templatetags.console import seconds, size
from modelhub.lifecycle.actions import cancel
from modelhub.lifecycle.models import Operation, OperationKind, OperationStatus
from modelhub.lifecycle.permissions import ACTIVATE, LOAD, UNLOAD
from modelhub.registry.choices import Status
from modelhub.registry.models import ModelVersion, large_columns

VIEW = "lifecycle.view_operation"
TEMPLATE = "console/operation/progress.html"
TOGETHER = "console/operation/together.html"
STOP_POLLING = 286  # htmx: swap this answer, and ask no more
MOST_TOGETHER = 100  # operations that one page follows; their ids fit into an address

_LOAD_PHASES = (
    LoadPhase.QUEUED,
    LoadPhase.STARTING,
    LoadPhase.VERIFYING,
    LoadPhase.LOADING,
    LoadPhase.WARMING_UP,
    LoadPhase.CHECKING,
)
# Any: mypy takes the members of Django's enums for tuples.
_PHASES: Mapping[Any, Sequence[LoadPhase]] = {
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
    """A phase of the operation and where it stands: done, now, failed, stopped, or to come."""

    words: str
    stands: str


@dataclass(frozen=True, slots=True)
class Followed:
    """An operation as a page tells it.

    steps: its phases. outcome: what came of it, in sentences. facts: (name, value) of a failure. advice: what to do
    next. ways: on from it.
    """

    operation: Operation
    steps: Sequence[Step]
    may_cancel: bool
    outcome: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
    advice: str = ""
    log_tail: Sequence[str] = ()
    ways: Sequence[Way] = field(default_factory=tuple)

    @property
    def tone(self) -> str:
        tones = {OperationStatus.SUCCEEDED: "good", OperationStatus.FAILED: "bad", OperationStatus.CANCELLED: "warn"}
        return tones.get(OperationStatus(self.operation.status), "info")

    @property
    def title(self) -> str:
        what = self.operation.what
        return f"{what[0].upper()}{what[1:]}"

    @property
    def now(self) -> str:
        """Where it stands, in a few words."""
        if self.operation.is_ended:
            return " ".join(self.outcome)
        return next((step.words for step in self.steps if step.stands == "now"), "waits to be taken")


def followed(operation: Operation, user: Any, *, has_ways: bool = True) -> Followed:
    """What a page says of it to this user. has_ways: with the ways on from it; an operation that moved `live` costs
    two queries then, any other none but those of permissions."""
    error = dict(operation.error or {}) if operation.status == OperationStatus.FAILED else {}
    facts = error.get("facts") or {}
    tail = facts.get("log_tail") or []
    return Followed(
        operation=operation,
        steps=_steps(operation),
        may_cancel=_may_cancel(operation, user),
        outcome=_outcome(operation),
        facts=_facts(facts),
        advice=advice_for(error, operation.version.model_id if operation.version else "") if error else "",
        log_tail=tail if isinstance(tail, list) else str(tail).splitlines(),
        ways=_ways(operation, error, user) if has_ways else (),
    )


# One operation, in a dialog


def progress(request: HttpRequest, operation: Operation) -> HttpResponse:
    """The dialog's content that follows an operation until its end; its present state alone for who may not see
    operations."""
    context = {"followed": followed(operation, request.user), "may_follow": request.user.has_perm(VIEW)}
    rendered = fragment(request, TEMPLATE, context)
    return render(request, "console/operation/dialog.html", {**context, "live": rendered})


@require_safe
def follow(request: HttpRequest, pk: UUID) -> HttpResponse:
    """The dialog of an operation that is under way, or has ended; without a script, its page."""
    if not request.user.has_perm(VIEW):
        return HttpResponse("You may not see operations.", status=403)
    if "HX-Request" not in request.headers:
        return redirect("admin:lifecycle_operation_change", pk)
    response = progress(request, _read(pk))
    response.headers["Cache-Control"] = "no-store"
    return response


@require_safe
def live(request: HttpRequest, pk: UUID) -> HttpResponse:
    """The fragment of an operation; asks to be asked no more when it has ended."""
    if not request.user.has_perm(VIEW):
        return HttpResponse("You may not see operations.", status=403)
    operation = _read(pk)
    return _live_answer(request, TEMPLATE, {"followed": followed(operation, request.user)}, operation.is_ended)


def _live_answer(request: HttpRequest, template: str, context: Mapping[str, Any], is_over: bool) -> HttpResponse:
    rendered = fragment(request, template, context)
    if is_over:
        dashboard.forget()
        counts.forget()
        response = HttpResponse(rendered, status=STOP_POLLING)
        response.headers["HX-Trigger"] = "mh:changed"
    else:
        seen = request.GET.get("seen", "")
        is_known = bool(seen) and rendered.startswith(f'<div data-mh-digest="{seen}">')
        response = HttpResponse("" if is_known else rendered, status=204 if is_known else 200)
    response.headers["Cache-Control"] = "no-store"
    return response


@require_POST
def cancel_view(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Cancels, and answers the fragment with what became of it, or with why not; without a script, its page."""
    if not request.user.has_perm(VIEW):
        return HttpResponse("You may not see operations.", status=403)
    told, status = "", 200
    try:
        cancel(_read(pk), user=request.user)
    except LoaderdError as error:
        told, status = error.message, error.http_status if 400 <= error.http_status < 500 else 409
    if "HX-Request" not in request.headers:
        if told:
            messages.error(request, told)
        return redirect("admin:lifecycle_operation_change", pk)
    operation = _read(pk)
    context = {"followed": followed(operation, request.user), "told": told}
    response = HttpResponse(fragment(request, TEMPLATE, context), status=status)
    if operation.is_ended:
        dashboard.forget()
        counts.forget()
        response.headers["HX-Trigger"] = "mh:changed"
    return response


def _read(pk: UUID) -> Operation:
    operations = Operation.objects.select_related("version__lineage").defer(*large_columns("version"))
    found: Operation = get_object_or_404(operations, pk=pk)
    return found


# Several operations, on a page


def together_url(operations: Iterable[Operation]) -> str:
    """The address of the page that follows all of them, or as many as it can."""
    ids = dict.fromkeys(operation.pk for operation in operations)
    short = [base64.urlsafe_b64encode(pk.bytes).decode().rstrip("=") for pk in list(ids)[:MOST_TOGETHER]]
    return f"{reverse('console:together')}?{urlencode({'ids': '.'.join(short), 'of': len(ids)})}"


@require_safe
def together(request: HttpRequest) -> HttpResponse:
    """The page of the operations that its address names, followed until the last has ended."""
    if not request.user.has_perm(VIEW):
        return HttpResponse("You may not see operations.", status=403)
    context = _together(request)
    page = {
        **admin.site.each_context(request),
        "title": "What was asked for",
        "live": fragment(request, TOGETHER, context),
        "is_over": context["is_over"],
        "query": request.META.get("QUERY_STRING", ""),
    }
    return TemplateResponse(request, "console/operation/together_page.html", page)


@require_safe
def together_live(request: HttpRequest) -> HttpResponse:
    if not request.user.has_perm(VIEW):
        return HttpResponse("You may not see operations.", status=403)
    context = _together(request)
    return _live_answer(request, TOGETHER, context, context["is_over"])


def _together(request: HttpRequest) -> dict[str, Any]:
    """One query beside those of permissions."""
    ids = _ids_in(request.GET.get("ids", ""))
    rows = Operation.objects.filter(pk__in=ids).select_related("version__lineage").defer(*large_columns("version"))
    by_id = {operation.pk: operation for operation in rows}
    found = [by_id[pk] for pk in ids if pk in by_id]
    counted = {
        word: sum(operation.status == status for operation in found)
        for word, status in (
            ("succeeded", OperationStatus.SUCCEEDED),
            ("failed", OperationStatus.FAILED),
            ("cancelled", OperationStatus.CANCELLED),
        )
    }
    stated = request.GET.get("of", "")
    return {
        "all": [followed(operation, request.user, has_ways=False) for operation in found],
        "counted": {word: count for word, count in counted.items() if count},
        "ended": sum(counted.values()),
        "is_over": all(operation.is_ended for operation in found),
        "left_out": max(0, int(stated) - len(found)) if stated.isdecimal() and len(stated) < 7 else 0,
    }


def _ids_in(stated: str) -> list[UUID]:
    """The ids of an address of `together_url`; what is none is left out."""
    found = []
    for short in stated.split(".")[:MOST_TOGETHER]:
        try:
            found.append(UUID(bytes=base64.urlsafe_b64decode(f"{short}==")))
        except (ValueError, binascii.Error):
            continue
    return found


# What is told


def _steps(operation: Operation) -> list[Step]:
    phases = _PHASES.get(operation.kind, ())
    if operation.status == OperationStatus.SUCCEEDED:
        return []  # which of them it needed is not known, and does not matter any more
    known = [phase.value for phase in phases]
    # A phase that was left in a moment may not have been reported; the error names the one that it ended in.
    facts = (operation.error or {}).get("facts") or {}
    reached = next((phase for phase in (facts.get("phase"), operation.phase) if phase in known), None)
    at = known.index(reached) if reached else (-1 if not operation.started_at else 0)
    ended = {OperationStatus.FAILED: "failed", OperationStatus.CANCELLED: "stopped"}
    stands = ended.get(OperationStatus(operation.status), "now")
    return [
        Step(_WORDS[phase], "done" if number < at else stands if number == at else "to come")
        for number, phase in enumerate(phases)
    ]


def _was_so_already(operation: Operation) -> bool:
    """Whether it ended as it was asked for: the model was as wished, and nothing was done."""
    return operation.finished_at is not None and operation.finished_at == operation.requested_at


def _outcome(operation: Operation) -> list[str]:
    """What came of it, in sentences made of what was measured."""
    if operation.status == OperationStatus.FAILED:
        return [str((operation.error or {}).get("message") or "It failed, and nothing says why; see loaderd's log.")]
    if operation.status == OperationStatus.CANCELLED:
        return [str((operation.error or {}).get("message") or "It was cancelled."), "Everything is as it was before."]
    if operation.status != OperationStatus.SUCCEEDED:
        return []
    result = operation.result or {}
    match operation.kind:
        case OperationKind.LOAD if _was_so_already(operation):
            return ["It was loaded already, so nothing had to be done."]
        case OperationKind.LOAD:
            held = size(result.get("private_bytes"))
            gpu = f" and {size(result['gpu_bytes'])} of GPU memory" if result.get("gpu_bytes") else ""
            return [f"Loaded in {seconds(result.get('load_seconds'))}; it holds {held}{gpu}."]
        case OperationKind.UNLOAD if result.get("status") == "not_loaded":
            return ["It was not loaded, so there was nothing to unload."]
        case OperationKind.UNLOAD:
            return [f"Unloaded; {size(result.get('freed_bytes'))} came back."]
        case OperationKind.ACTIVATE | OperationKind.ROLLBACK if _was_so_already(operation):
            return ["It was live already, so nothing had to be done."]
        case OperationKind.ACTIVATE | OperationKind.ROLLBACK:
            return _switched(result)
        case OperationKind.OPTIMIZE:
            unloaded = result.get("unloaded") or []
            count = f"{len(unloaded)} model{'' if len(unloaded) == 1 else 's'}"
            told = [f"{size(result.get('freed_bytes') or 0)} came back from {count}."] if unloaded else []
            told += [f"{entry['model_id']}: {entry['reason']}" for entry in unloaded]
            return told or ["Nothing was superfluous, so nothing was unloaded."]
    return []


def _switched(result: Mapping[str, Any]) -> list[str]:
    before = result.get("previous")
    told = ["It is live" + (f" in place of {before}." if before else ".")]
    if result.get("load_seconds"):
        told.append(f"It was loaded in {seconds(result['load_seconds'])}.")
    if result.get("gap_seconds") is not None:
        told.append(f"Nobody answered for {seconds(result['gap_seconds'])}.")
    if result.get("freed_bytes") is not None:
        told.append(f"{before or 'The old version'} was unloaded; {size(result['freed_bytes'])} came back.")
    return told


def _facts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is known of a failure beside its message, for people."""
    found = []
    if facts.get("phase"):
        found.append(("Phase", str(facts["phase"]).replace("_", " ")))
    if facts.get("exit_signal") is not None:
        found.append(("Ended by signal", _signal_name(facts["exit_signal"])))
    elif facts.get("exit_status") is not None:
        found.append(("Exit status", str(facts["exit_status"])))
    if facts.get("pid"):
        found.append(("Process", str(facts["pid"])))
    return found


def _signal_name(number: Any) -> str:
    try:
        return f"{signal.Signals(int(number)).name} ({int(number)})"
    except (ValueError, TypeError):
        return str(number)


def _may_cancel(operation: Operation, user: Any) -> bool:
    if operation.is_ended:
        return False
    if operation.kind in (OperationKind.UNLOAD, OperationKind.OPTIMIZE) and operation.started_at is not None:
        return False
    needed = {OperationKind.LOAD: LOAD, OperationKind.ACTIVATE: ACTIVATE, OperationKind.ROLLBACK: ACTIVATE}
    return bool(user.has_perm(needed.get(OperationKind(operation.kind), UNLOAD)))


def _ways(operation: Operation, error: Mapping[str, Any], user: Any) -> list[Way]:
    """Back, where there is a way back; else what removes the cause, and to try again; and to the model."""
    if not operation.is_ended:
        return []
    version = operation.version
    found = [*_undo(operation, user)] if operation.status == OperationStatus.SUCCEEDED else []
    if error:
        found += ways_after(error, version, user)
    if version is None:
        return found
    if operation.status != OperationStatus.SUCCEEDED:
        again = {
            OperationKind.LOAD: LOAD,
            OperationKind.UNLOAD: UNLOAD,
            OperationKind.ACTIVATE: ACTIVATE,
            OperationKind.ROLLBACK: ACTIVATE,
        }
        if user.has_perm(again[OperationKind(operation.kind)]):
            found.append(_way("Try again", str(operation.kind), version.pk))
    page = reverse("admin:registry_modelversion_change", args=[version.pk])
    return [*found, Way("The model's page", page, dialog=False)]


def _undo(operation: Operation, user: Any) -> list[Way]:
    """The opposite, while what the operation made is still so."""
    version = operation.version
    if version is None or _was_so_already(operation):
        return []
    match operation.kind:
        case OperationKind.LOAD if version.status == Status.LOADED and user.has_perm(UNLOAD):
            return [_way("Undo: unload", "unload", version.pk)]
        case OperationKind.UNLOAD if version.status == Status.UNLOADED and user.has_perm(LOAD):
            if (operation.result or {}).get("status") != "not_loaded":
                return [_way("Undo: load again", "load", version.pk)]
        case OperationKind.ACTIVATE | OperationKind.ROLLBACK if user.has_perm(ACTIVATE):
            previous = _replaced(operation, version)
            if previous is not None:
                is_rollback = operation.kind == OperationKind.ROLLBACK
                title = f"Undo: {'activate' if is_rollback else 'roll back to'} {previous.model_id}"
                return [_way(title, "activate" if is_rollback else "rollback", previous.pk)]
    return []


def _replaced(operation: Operation, version: ModelVersion) -> ModelVersion | None:
    """The version that was live before, while the new one is live and the old one is there. Two queries."""
    name = (operation.result or {}).get("previous")
    if not name or not version.aliases.filter(name=LIVE).exists():
        return None
    there = ModelVersion.objects.filter(lineage=version.lineage_id, missing_since=None, refusal="")
    return there.filter(model_id=name).only("pk", "model_id").first()


def _way(title: str, command: str, pk: int) -> Way:
    return Way(title, reverse(f"admin:registry_modelversion_{command}", args=[pk]))
