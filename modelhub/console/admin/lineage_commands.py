"""What people tell lineages to do in the admin: roll back, set and remove aliases, set the traffic. Each by POST."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import URLPattern, path, reverse
from django.views.decorators.http import require_http_methods, require_POST
from unfold.admin import ModelAdmin

from loaderd.errors import InvalidInput, LoaderdError, UnknownModel
from loaderd.rules import LIVE
from modelhub.console.admin.confirming import Effect, confirmation, effect_of
from modelhub.console.admin.model_commands import reason_of
from modelhub.lifecycle.planning import plan_activate
from modelhub.lifecycle.versions import (
    periods,
    previous_live,
    remove_alias,
    request_rollback,
    set_alias,
    set_traffic,
)
from modelhub.registry.models import Alias, Model, ModelVersion, large_columns
from modelhub.telemetry.queries import comparison_of

SHOWN_PERIODS = 20

Act = Callable[[HttpRequest, Model], str]


class LineageCommands(ModelAdmin):
    """The bar above a lineage's page, and what its buttons do."""

    change_form_outer_before_template = "console/lineage_commands.html"

    def has_activate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("registry.activate_modelversion")

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        lineage = self.get_object(request, object_id)
        shown = {} if lineage is None else self._shown(request, lineage)
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **shown})

    def _shown(self, request: HttpRequest, lineage: Model) -> dict[str, Any]:
        """What the bar tells; a fixed number of queries."""
        comparison = comparison_of(lineage)
        sides = [comparison["live"], comparison["candidate"]] if comparison else []
        aliases = Alias.objects.filter(lineage=lineage).select_related("version")
        return {
            "may_activate": self.has_activate_permission(request),
            "aliases": aliases.defer(*large_columns("version")),
            "live_alias": LIVE,
            "previous_live": previous_live(lineage),
            "versions": ModelVersion.objects.filter(lineage=lineage, missing_since=None).only("model_id", "version"),
            "periods": periods(lineage, limit=SHOWN_PERIODS),
            "comparison": comparison,
            "comparison_sides": [{**side, "latencies": list(side["latency_ms"].values())} for side in sides],
        }

    # Commands

    def _set_alias(self, request: HttpRequest, lineage: Model) -> str:
        name = request.POST.get("name", "").strip()
        chosen = request.POST.get("version", "")
        version = ModelVersion.objects.filter(lineage=lineage, pk=chosen).first() if chosen.isdecimal() else None
        if version is None:
            raise UnknownModel(f"Choose one of the versions of {lineage} for the alias {name!r}.")
        alias = set_alias(lineage, name, version, user=request.user, reason=reason_of(request))
        return f"{alias} leads to {version}."

    def _remove_alias(self, request: HttpRequest, lineage: Model) -> str:
        name = request.POST.get("name", "")
        remove_alias(lineage, name, user=request.user, reason=reason_of(request))
        return f"{lineage} has no alias {name} any more."

    def _set_traffic(self, request: HttpRequest, lineage: Model) -> str:
        stated = request.POST.get("candidate_percent", "").strip()
        try:
            percent = float(stated)
        except ValueError:
            raise InvalidInput(f"The share is a number from 0 to 100, not {stated!r}.") from None
        changed = set_traffic(
            lineage,
            candidate_percent=percent,
            shadow="shadow" in request.POST,
            user=request.user,
            reason=reason_of(request),
        )
        copies = ", and copies of what live answers" if changed.shadow else ""
        return f"{changed.candidate_percent:g} % of the requests for {lineage} go to its candidate{copies}."

    def _roll_back(self, request: HttpRequest, lineage: Model) -> str:
        operation = request_rollback(
            lineage,
            to=self._target(request, lineage),
            user=request.user,
            source="admin",
            reason=reason_of(request),
            allow_gap="allow_gap" in request.POST,
        )
        return f"{lineage} is to be rolled back to {operation.version}; it is when the operation has ended."

    def _target(self, request: HttpRequest, lineage: Model) -> ModelVersion | None:
        """The version that the confirmation named; somebody may have moved `live` since, so it is named again."""
        stated = request.POST.get("to", "")
        if not stated:
            return None
        version = ModelVersion.objects.select_related("lineage").filter(lineage=lineage, model_id=stated).first()
        if version is None:
            raise UnknownModel(f"{lineage} has no version {stated}.", model_id=stated)
        return version

    # Addresses

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        acts: dict[str, Act] = {
            "alias": self._set_alias,
            "alias-remove": self._remove_alias,
            "traffic": self._set_traffic,
        }
        return [
            *(
                path(f"<int:pk>/{name}/", wrap(require_POST(self._view_of(act))), name=f"registry_model_{name}")
                for name, act in acts.items()
            ),
            path(
                "<int:pk>/rollback/",
                wrap(require_http_methods(["GET", "POST"])(self.roll_back)),
                name="registry_model_rollback",
            ),
            *super().get_urls(),
        ]

    def roll_back(self, request: HttpRequest, pk: int) -> HttpResponse:
        """GET states the effect and asks; POST does it."""
        if request.method == "POST":
            return self._view_of(self._roll_back)(request, pk)
        if not self.has_activate_permission(request):
            raise PermissionDenied
        lineage = get_object_or_404(Model, pk=pk)
        to = previous_live(lineage)
        if to is None:
            effect = Effect(lineage.name, "No earlier version can be live again.", is_possible=False)
        else:
            # Read again, with the columns that a plan needs.
            version = ModelVersion.objects.select_related("lineage").get(pk=to.pk)
            effect = effect_of(version.model_id, partial(plan_activate, version))
        return confirmation(
            request,
            self.admin_site,
            title=f"Roll {lineage} back" + (f" to {to}" if to else ""),
            effects=[effect],
            submit="Roll back",
            back=reverse("admin:registry_model_change", args=[pk]),
            hidden=[("to", to.model_id)] if to else [],
        )

    def _view_of(self, act: Act) -> Callable[..., HttpResponse]:
        def view(request: HttpRequest, pk: int) -> HttpResponse:
            if not self.has_activate_permission(request):
                raise PermissionDenied
            lineage: Any = get_object_or_404(Model, pk=pk)
            try:
                self.message_user(request, act(request, lineage), messages.SUCCESS)
            except LoaderdError as error:
                self.message_user(request, error.message, messages.ERROR)
            return redirect("admin:registry_model_change", pk)

        return view
