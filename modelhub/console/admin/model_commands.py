"""What people tell models to do in the admin: load, unload, activate, roll back, approve, forget the canary,
optimise, discover.

Each by POST. What may touch other models is confirmed first, on a page that states its effect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import URLPattern, path, reverse
from django.views.decorators.http import require_http_methods, require_POST
from unfold.admin import ModelAdmin

from loaderd.errors import LoaderdError
from loaderd.rules import LIVE
from modelhub.console.admin.confirming import MOST_PLANS, confirmation, effect_of
from modelhub.lifecycle.actions import request_load, request_unload
from modelhub.lifecycle.canaries import forget_canary, plan_forget_canary
from modelhub.lifecycle.optimising import request_optimize
from modelhub.lifecycle.planning import plan_activate, plan_load, plan_optimize, plan_rollback, plan_unload
from modelhub.lifecycle.versions import request_activate, request_rollback, was_live
from modelhub.registry.approval import ApprovalRefused, approve, revoke
from modelhub.registry.artifacts import declared_canary
from modelhub.registry.discovery import DiscoveryFailed, DiscoveryReport, discover
from modelhub.registry.models import ModelVersion

SHOWN_REFUSALS = 20
DEFAULT_REASON = "asked for in the admin"


@dataclass(frozen=True, slots=True)
class Command:
    """One thing to do with one model.

    run: does it and returns what to tell, or raises LoaderdError, ApprovalRefused, PermissionDenied. permission:
    `has_<permission>_permission` of the admin. plan: what it would do, told before; None: it is done at once.
    """

    name: str
    title: str
    permission: str
    run: Callable[[HttpRequest, ModelVersion], str]
    plan: Callable[[ModelVersion], Mapping[str, Any]] | None = None


def _load(request: HttpRequest, version: ModelVersion) -> str:
    request_load(version, user=request.user, source="admin", reason=reason_of(request))
    return f"{version} is to be loaded; its status follows."


def _unload(request: HttpRequest, version: ModelVersion) -> str:
    request_unload(version, user=request.user, source="admin", reason=reason_of(request))
    return f"{version} is to be unloaded; its status follows."


def _activate(request: HttpRequest, version: ModelVersion) -> str:
    request_activate(
        version, user=request.user, source="admin", reason=reason_of(request), allow_gap="allow_gap" in request.POST
    )
    return f"{version} is to be live; it is when its operation has ended."


def _roll_back(request: HttpRequest, version: ModelVersion) -> str:
    request_rollback(
        version.lineage,
        to=version,
        user=request.user,
        source="admin",
        reason=reason_of(request),
        allow_gap="allow_gap" in request.POST,
    )
    return f"{version.lineage} is to be rolled back to {version}; it is when the operation has ended."


def _plan_rollback(version: ModelVersion) -> Mapping[str, Any]:
    return plan_rollback(version.lineage, version)


def reason_of(request: HttpRequest) -> str:
    return request.POST.get("reason", "").strip() or DEFAULT_REASON


LOAD = Command("load", "Load", "load", _load, plan_load)
UNLOAD = Command("unload", "Unload", "unload", _unload, plan_unload)
ACTIVATE = Command("activate", "Activate", "activate", _activate, plan_activate)
ROLLBACK = Command("rollback", "Roll back to this", "activate", _roll_back, _plan_rollback)


class ModelCommands(ModelAdmin):
    """List actions, the buttons of a model's page, and the buttons that optimise and run discovery."""

    actions = ["load_selected", "unload_selected", "approve_selected"]

    # Permissions: Django asks has_<name>_permission of each action

    def has_load_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("registry.load_modelversion")

    def has_unload_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("registry.unload_modelversion")

    def has_activate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("registry.activate_modelversion")

    def has_approve_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("registry.approve_modelversion")

    def has_discover_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("registry.discover_modelversion")

    # List actions

    @admin.action(description="Load selected models", permissions=["load"])
    def load_selected(self, request: HttpRequest, queryset: QuerySet[ModelVersion]) -> HttpResponse | None:
        return self._confirm_each(request, queryset, LOAD)

    @admin.action(description="Unload selected models", permissions=["unload"])
    def unload_selected(self, request: HttpRequest, queryset: QuerySet[ModelVersion]) -> HttpResponse | None:
        return self._confirm_each(request, queryset, UNLOAD)

    @admin.action(description="Approve selected models: their files may run code", permissions=["approve"])
    def approve_selected(self, request: HttpRequest, queryset: QuerySet[ModelVersion]) -> None:
        self._tell_each(request, queryset, self._approve)

    def _confirm_each(
        self, request: HttpRequest, queryset: QuerySet[ModelVersion], command: Command
    ) -> HttpResponse | None:
        """First the page that states the effects, then, confirmed, the command for each."""
        if "confirmed" in request.POST:
            self._tell_each(request, queryset, command)
            return None
        assert command.plan is not None
        chosen = _complete(queryset)[:MOST_PLANS]
        count = queryset.count()
        return confirmation(
            request,
            self.admin_site,
            title=f"{command.title}: {chosen[0] if count == 1 else f'{count} models'}",
            effects=[effect_of(str(version), partial(command.plan, version)) for version in chosen],
            submit=command.title,
            back=request.get_full_path(),
            # As they were sent: with "all of the list" chosen there is no naming them one by one.
            hidden=[
                ("action", f"{command.name}_selected"),
                ("select_across", request.POST.get("select_across", "0")),
                *((ACTION_CHECKBOX_NAME, pk) for pk in request.POST.getlist(ACTION_CHECKBOX_NAME)),
            ],
            left_out=max(0, count - MOST_PLANS),
        )

    def _tell_each(self, request: HttpRequest, queryset: QuerySet[ModelVersion], command: Command) -> None:
        """Every model gets the command; one that refuses does not stop the others."""
        for version in _complete(queryset):
            self._tell(request, version, command)

    def _tell(self, request: HttpRequest, version: ModelVersion, command: Command) -> None:
        try:
            self.message_user(request, command.run(request, version), messages.SUCCESS)
        except (LoaderdError, ApprovalRefused, PermissionDenied) as error:
            self.message_user(request, str(error), messages.ERROR)

    def _run_approve(self, request: HttpRequest, version: ModelVersion) -> str:
        # The page of one model says which bytes were looked at; they may have changed since.
        approve(version, request.user, request.POST.get("digest"))
        self.log_change(request, version, f"Approved {version.approved_digest}.")
        return f"{version} is approved with digest {version.approved_digest[:12]}."

    def _run_revoke(self, request: HttpRequest, version: ModelVersion) -> str:
        revoke(version, request.user)
        self.log_change(request, version, "Approval taken back.")
        return f"The approval of {version} is taken back."

    def _run_forget_canary(self, request: HttpRequest, version: ModelVersion) -> str:
        forget_canary(version, user=request.user, reason=reason_of(request))
        self.log_change(request, version, "Recorded canary forgotten.")
        return f"The canary of {version} is forgotten; its next load records a new one."

    @property
    def _forget_canary(self) -> Command:
        return Command("forget_canary", "Forget canary", "change", self._run_forget_canary, plan_forget_canary)

    @property
    def _approve(self) -> Command:
        return Command("approve", "Approve these files", "approve", self._run_approve)

    @property
    def _revoke(self) -> Command:
        return Command("revoke", "Take approval back", "approve", self._run_revoke)

    # Buttons

    def buttons_of(self, request: HttpRequest, version: ModelVersion) -> list[dict[str, Any]]:
        """What this user may do with this model now: [{title, url, is_confirmed}]."""
        commands = [LOAD, UNLOAD]
        if not any(alias.name == LIVE for alias in version.aliases.all()):
            commands.append(ACTIVATE)
            if was_live(version):
                commands.append(ROLLBACK)
        # Every format: a skops file with types of its own needs it, which shows when it is loaded only.
        commands.append(self._revoke if version.is_approved else self._approve)
        if version.canary is not None and declared_canary(version) is None:
            commands.append(self._forget_canary)
        return [
            {
                "title": command.title,
                "url": reverse(f"admin:registry_modelversion_{command.name}", args=[version.pk]),
                "is_confirmed": command.plan is not None,
            }
            for command in commands
            if self._may(request, command)
        ]

    def _may(self, request: HttpRequest, command: Command) -> bool:
        return bool(getattr(self, f"has_{command.permission}_permission")(request))

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        return [
            path("discover/", wrap(require_POST(self.run_discovery)), name="registry_modelversion_discover"),
            path(
                "optimize/",
                wrap(require_http_methods(["GET", "POST"])(self.optimize)),
                name="registry_modelversion_optimize",
            ),
            *(
                path(
                    f"<int:pk>/{command.name}/",
                    wrap(self._view_of(command)),
                    name=f"registry_modelversion_{command.name}",
                )
                for command in (LOAD, UNLOAD, ACTIVATE, ROLLBACK, self._approve, self._revoke, self._forget_canary)
            ),
            *super().get_urls(),
        ]

    def _view_of(self, command: Command) -> Callable[..., HttpResponse]:
        """GET, where there is a plan, states the effect and asks; POST does it."""

        def view(request: HttpRequest, pk: int) -> HttpResponse:
            if not self._may(request, command):
                raise PermissionDenied
            version: Any = get_object_or_404(ModelVersion.objects.select_related("lineage"), pk=pk)
            back = reverse("admin:registry_modelversion_change", args=[pk])
            if request.method != "POST" and command.plan is not None:
                return confirmation(
                    request,
                    self.admin_site,
                    title=f"{command.title}: {version}",
                    effects=[effect_of(str(version), partial(command.plan, version))],
                    submit=command.title,
                    back=back,
                )
            self._tell(request, version, command)
            return redirect(back)

        return require_POST(view) if command.plan is None else require_http_methods(["GET", "POST"])(view)

    def optimize(self, request: HttpRequest) -> HttpResponse:
        """Unloads what is unused or little used; GET tells what that would be."""
        if not self.has_unload_permission(request):
            raise PermissionDenied
        back = reverse("admin:registry_modelversion_changelist")
        if request.method != "POST":
            return confirmation(
                request,
                self.admin_site,
                title="Optimise memory",
                effects=[effect_of("all models", plan_optimize)],
                submit="Optimise memory",
                back=back,
            )
        try:
            operation = request_optimize(user=request.user, source="admin", reason=reason_of(request))
        except LoaderdError as error:
            self.message_user(request, error.message, messages.ERROR)
            return redirect(back)
        self.message_user(request, "Memory is to be optimised; this operation tells what was freed.", messages.SUCCESS)
        return redirect("admin:lifecycle_operation_change", operation.pk)

    def run_discovery(self, request: HttpRequest) -> HttpResponse:
        if not self.has_discover_permission(request):
            raise PermissionDenied
        try:
            report = discover(actor=request.user.get_username())
        except DiscoveryFailed as error:
            self.message_user(request, str(error), messages.ERROR)
        else:
            self._tell_report(request, report)
        return redirect("admin:registry_modelversion_changelist")

    def _tell_report(self, request: HttpRequest, report: DiscoveryReport) -> None:
        self.message_user(request, f"Discovery: {report.summary()}.", messages.SUCCESS)
        for model_id in report.stale_in_memory:
            text = f"{model_id} changed on disk while it is loaded; unload and load it to use the new files."
            self.message_user(request, text, messages.WARNING)
        for refused_path, reason in report.refused[:SHOWN_REFUSALS]:
            self.message_user(request, f"{refused_path} is refused. {reason}", messages.WARNING)
        if len(report.refused) > SHOWN_REFUSALS:
            more = f"{len(report.refused) - SHOWN_REFUSALS} more are refused; see the discovery's page."
            self.message_user(request, more, messages.WARNING)


def _complete(queryset: QuerySet[ModelVersion]) -> QuerySet[ModelVersion]:
    """The rows read again: a list's come without their large fields."""
    chosen = ModelVersion.objects.filter(pk__in=queryset.order_by().values("pk"))
    return chosen.select_related("lineage").order_by("model_id")
