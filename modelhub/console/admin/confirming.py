"""What stands between a button and its command: the question that states the effect, and the answer to its yes.

A dialog where the page's script asks (`HX-Request`), a page of its own where there is no script; the same addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from django.contrib import messages
from django.contrib.admin import AdminSite
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html

from loaderd.errors import LoaderdError
from loaderd.errors import PermissionDenied as NotPermitted
from modelhub.console import following
from modelhub.console.admin.effects import Effect
from modelhub.console.advice import Way
from modelhub.console.dashboard.snapshot import dashboard
from modelhub.console.site import counts
from modelhub.lifecycle.models import Operation
from modelhub.registry.approval import ApprovalRefused
from modelhub.registry.discovery import DiscoveryFailed

CHANGED = "mh:changed"  # the page under a dialog listens to it
MOST_REASON = 500
_CONFLICT = 409


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked before a command.

    verb: on the button that says yes. back: the page that it was asked on. effects: what it would do; without one
    that is possible there is no button. fields: a template of further fields, and what it shows. hidden: what the
    form sends along. left_out: how many more the command concerns, whose effects are not told. action: where the form
    is posted ("": where it was asked for). is_grave: something ends by it that serves now. no: on the button
    that says no.
    """

    title: str
    verb: str
    back: str
    effects: Sequence[Effect] = ()
    fields: str = ""
    shown: Mapping[str, Any] = field(default_factory=dict)
    hidden: Sequence[tuple[str, Any]] = ()
    left_out: int = 0
    action: str = ""
    is_grave: bool = False
    no: str = "Cancel"
    asks_reason: bool = True

    @property
    def is_possible(self) -> bool:
        return any(effect.is_possible for effect in self.effects)

    @property
    def needs_gap(self) -> bool:
        return any(effect.needs_gap for effect in self.effects)

    @property
    def are_many(self) -> bool:
        return len(self.effects) + self.left_out > 1


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a command that ends at once. warnings: what somebody should look at. way: where it is seen."""

    title: str
    sentence: str
    warnings: Sequence[str] = ()
    way: Way | None = None


Outcome: TypeAlias = "Operation | Done"
REFUSED = (LoaderdError, ApprovalRefused, DiscoveryFailed, PermissionDenied)


def is_dialog(request: HttpRequest) -> bool:
    return "HX-Request" in request.headers


def reason_of(request: HttpRequest, default: str = "asked for in the admin") -> str:
    return request.POST.get("reason", "").strip()[:MOST_REASON] or default


def require(request: HttpRequest, is_permitted: bool, what: str) -> HttpResponse | None:
    """None for who may; else, in a dialog, an answer of 403 that says so. Raises PermissionDenied for a page."""
    if is_permitted:
        return None
    if not is_dialog(request):
        raise PermissionDenied
    told = f"{request.user.get_username()} may not {what}; an administrator can grant the permission."
    return render(request, "console/dialog/refused.html", {"told": told}, status=403)


def ask(
    request: HttpRequest, site: AdminSite, question: Question, *, told: str = "", status: int = 200
) -> HttpResponse:
    """The question. told: why the command was refused when it was asked for with what the form says now."""
    context = {
        "question": question,
        "told": told,
        "action": question.action or request.get_full_path(),
        "reason": request.POST.get("reason", ""),
        "most_reason": MOST_REASON,
        **question.shown,
    }
    if is_dialog(request):
        response = render(request, "console/dialog/ask.html", context, status=status)
    else:
        page = {**site.each_context(request), "title": question.title, **context}
        response = TemplateResponse(request, "console/confirm.html", page, status=status)
    response.headers["Cache-Control"] = "no-store"
    return response


def carry_out(
    request: HttpRequest, site: AdminSite, act: Callable[[], Outcome], question: Callable[[], Question], back: str
) -> HttpResponse:
    """Does it. A dialog then shows the operation's progress, or what came of it, or the question again with why it was
    refused; without a script the page that it was asked on says the same."""
    try:
        outcome = act()
    except REFUSED as error:
        told = reason_for_refusal(error)
        if not is_dialog(request):
            messages.error(request, told)
            return redirect(back)
        status = 403 if isinstance(error, PermissionDenied | NotPermitted) else _CONFLICT
        return ask(request, site, question(), told=told, status=status)
    forget_what_was_shown()
    if is_dialog(request):
        if isinstance(outcome, Operation):
            response = following.progress(request, outcome)
        else:
            response = render(request, "console/dialog/done.html", {"done": outcome})
        response.headers["HX-Trigger"] = CHANGED
        response.headers["Cache-Control"] = "no-store"
        return response
    tell(request, outcome)
    if isinstance(outcome, Operation) and outcome.version is None:
        return redirect("admin:lifecycle_operation_change", outcome.pk)  # no other page tells of it
    return redirect(back)


def reason_for_refusal(error: BaseException) -> str:
    return error.message if isinstance(error, LoaderdError) else str(error) or "This is not permitted."


def tell(request: HttpRequest, outcome: Outcome) -> None:
    """As messages on the next page; an operation with the way to it."""
    if isinstance(outcome, Operation):
        url = reverse("admin:lifecycle_operation_change", args=[outcome.pk])
        what = f"The {outcome.what} is {'done' if outcome.is_ended else 'under way'}:"
        messages.success(request, format_html('{} <a href="{}">follow it</a>.', what, url))
        return
    messages.success(request, outcome.sentence)
    for warning in outcome.warnings:
        messages.warning(request, warning)


def forget_what_was_shown() -> None:
    """What the dashboard and the sidebar show next is made anew: somebody just changed it."""
    dashboard.forget()
    counts.forget()
