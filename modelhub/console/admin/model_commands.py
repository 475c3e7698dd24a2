"""What people tell models to do in the admin: load, unload, approve, discover. Each by POST."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import URLPattern, path, reverse
from django.views.decorators.http import require_POST
from unfold.admin import ModelAdmin

from loaderd.errors import LoaderdError
from modelhub.lifecycle.actions import request_load, request_unload
from modelhub.registry.approval import ApprovalRefused, approve, revoke
from modelhub.registry.discovery import DiscoveryFailed, DiscoveryReport, discover
from modelhub.registry.models import ModelVersion

SHOWN_REFUSALS = 20
Command = Callable[[HttpRequest, ModelVersion], str]


class ModelCommands(ModelAdmin):
    """List actions, the buttons of a model's page, and the button that runs discovery."""

    actions = ["load_selected", "unload_selected", "approve_selected"]

    # Permissions: Django asks has_<name>_permission of each action

    def has_load_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("registry.load_modelversion")

    def has_unload_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("registry.unload_modelversion")

    def has_approve_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("registry.approve_modelversion")

    def has_discover_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("registry.discover_modelversion")

    # List actions

    @admin.action(description="Load selected models", permissions=["load"])
    def load_selected(self, request: HttpRequest, queryset: QuerySet[ModelVersion]) -> None:
        self._tell_each(request, queryset, self._load)

    @admin.action(description="Unload selected models", permissions=["unload"])
    def unload_selected(self, request: HttpRequest, queryset: QuerySet[ModelVersion]) -> None:
        self._tell_each(request, queryset, self._unload)

    @admin.action(description="Approve selected models: their files may run code", permissions=["approve"])
    def approve_selected(self, request: HttpRequest, queryset: QuerySet[ModelVersion]) -> None:
        self._tell_each(request, queryset, self._approve)

    def _tell_each(self, request: HttpRequest, queryset: QuerySet[ModelVersion], command: Command) -> None:
        """Every model gets the command; one that refuses does not stop the others."""
        # Read again: the list's rows come without their large fields.
        for version in ModelVersion.objects.select_related("lineage").filter(pk__in=queryset.values("pk")):
            self._tell(request, version, command)

    def _tell(self, request: HttpRequest, version: ModelVersion, command: Command) -> None:
        try:
            self.message_user(request, command(request, version), messages.SUCCESS)
        except (LoaderdError, ApprovalRefused, PermissionDenied) as error:
            self.message_user(request, str(error), messages.ERROR)

    def _load(self, request: HttpRequest, version: ModelVersion) -> str:
        request_load(version, user=request.user, source="admin", reason="asked for in the admin")
        return f"{version} is to be loaded; its status follows."

    def _unload(self, request: HttpRequest, version: ModelVersion) -> str:
        request_unload(version, user=request.user, source="admin", reason="asked for in the admin")
        return f"{version} is to be unloaded; its status follows."

    def _approve(self, request: HttpRequest, version: ModelVersion) -> str:
        # The page of one model says which bytes were looked at; they may have changed since.
        approve(version, request.user, request.POST.get("digest"))
        self.log_change(request, version, f"Approved {version.approved_digest}.")
        return f"{version} is approved with digest {version.approved_digest[:12]}."

    def _revoke(self, request: HttpRequest, version: ModelVersion) -> str:
        revoke(version, request.user)
        self.log_change(request, version, "Approval taken back.")
        return f"The approval of {version} is taken back."

    # Buttons

    def buttons_of(self, request: HttpRequest, version: ModelVersion) -> list[dict[str, str]]:
        """What this user may do with this model now: [{title, url, digest}]."""
        shown = []
        if self.has_load_permission(request):
            shown.append(("load", "Load"))
        if self.has_unload_permission(request):
            shown.append(("unload", "Unload"))
        if self.has_approve_permission(request):
            # Every format: a skops file with types of its own needs it, which shows when it is loaded only.
            if not version.is_approved:
                shown.append(("approve", "Approve these files"))
            else:
                shown.append(("revoke", "Take approval back"))
        return [
            {"title": title, "url": reverse(f"admin:registry_modelversion_{name}", args=[version.pk])}
            for name, title in shown
        ]

    def get_urls(self) -> list[URLPattern]:
        commands: dict[str, tuple[Command, Callable[[HttpRequest], bool]]] = {
            "load": (self._load, self.has_load_permission),
            "unload": (self._unload, self.has_unload_permission),
            "approve": (self._approve, self.has_approve_permission),
            "revoke": (self._revoke, self.has_approve_permission),
        }
        wrap = self.admin_site.admin_view
        return [
            path("discover/", wrap(require_POST(self.run_discovery)), name="registry_modelversion_discover"),
            *(
                path(
                    f"<int:pk>/{name}/",
                    wrap(require_POST(self._view_of(command, is_permitted))),
                    name=f"registry_modelversion_{name}",
                )
                for name, (command, is_permitted) in commands.items()
            ),
            *super().get_urls(),
        ]

    def _view_of(self, command: Command, is_permitted: Callable[[HttpRequest], bool]) -> Callable[..., HttpResponse]:
        def view(request: HttpRequest, pk: int) -> HttpResponse:
            if not is_permitted(request):
                raise PermissionDenied
            version: Any = get_object_or_404(ModelVersion.objects.select_related("lineage"), pk=pk)
            self._tell(request, version, command)
            return redirect("admin:registry_modelversion_change", pk)

        return view

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
