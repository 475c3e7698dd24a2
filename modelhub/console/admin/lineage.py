"""A lineage in the admin, with its versions, its aliases and traffic, and who was live when."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from django.contrib import admin
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.forms import ModelForm
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from unfold.admin import TabularInline
from unfold.decorators import display

from loaderd.rules import LIVE
from modelhub.console.admin.lineage_commands import LineageCommands
from modelhub.console.admin.model_version import STATUS_COLOURS
from modelhub.lifecycle.admin import leads_to
from modelhub.lifecycle.models import LineageChange
from modelhub.lifecycle.observed import effective_status, loader_view
from modelhub.registry.choices import Status
from modelhub.registry.models import Alias, Model, ModelVersion, large_columns


class VersionInline(TabularInline):
    model = ModelVersion
    fields = ["version", "shown_status", "framework", "size", "usage_count", "last_used_at", "rolled_back_at"]
    readonly_fields = fields
    ordering = ["-created_at"]
    extra = 0
    per_page = 50
    can_delete = False
    show_change_link = True
    tab = False

    @cached_property
    def _loader(self) -> Any:
        """Looked at once a page: Django makes an inline for each request."""
        return loader_view()

    def get_queryset(self, request: HttpRequest) -> QuerySet[ModelVersion]:
        return super().get_queryset(request).defer(*large_columns())

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    @display(description="Status", label=STATUS_COLOURS)
    def shown_status(self, version: ModelVersion) -> str:
        return effective_status(version, self._loader)

    @display(description="Size")
    def size(self, version: ModelVersion) -> str:
        return filesizeformat(version.size_bytes)


class ChangeInline(TabularInline):
    """Who moved which alias, set which traffic, when and why."""

    model = LineageChange
    verbose_name_plural = "history"
    fields = ["at", "alias", "kind", "shown_version", "reason", "actor"]
    readonly_fields = fields
    ordering = ["-at", "-id"]
    extra = 0
    per_page = 20
    can_delete = False
    tab = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[LineageChange]:
        changes = super().get_queryset(request).select_related("version")
        return changes.defer(*large_columns("version"))

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    @display(description="Leads to")
    def shown_version(self, change: LineageChange) -> str:
        return leads_to(change)


@admin.register(Model)
class LineageAdmin(LineageCommands):
    list_display = ["name", "type", "version_count", "loaded_count", "live", "traffic", "created_at"]
    list_filter = ["type"]
    list_per_page = 50
    search_fields = ["name", "versions__model_id"]
    search_help_text = "Lineage or model"
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    fields = ["name", "type", "description", "created_at"]
    readonly_fields = ["name", "type", "created_at"]
    inlines = [VersionInline, ChangeInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Model]:
        counts = {
            "version_total": Count("versions", distinct=True),
            "loaded_total": Count("versions", filter=Q(versions__status=Status.LOADED), distinct=True),
        }
        live = Alias.objects.filter(lineage=OuterRef("pk"), name=LIVE).values("version__model_id")
        return super().get_queryset(request).annotate(**counts, live_id=Subquery(live))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # discovery adds

    def save_model(self, request: HttpRequest, obj: Model, form: ModelForm, change: bool) -> None:
        obj.save(update_fields=form.changed_data)

    @display(description="Versions", ordering="version_total")
    def version_count(self, lineage: Any) -> int:
        return lineage.version_total

    @display(description="Loaded", ordering="loaded_total")
    def loaded_count(self, lineage: Any) -> int:
        return lineage.loaded_total

    @display(description="Live", ordering="live_id")
    def live(self, lineage: Any) -> str | None:
        return lineage.live_id

    @display(description="To candidate", ordering="candidate_percent")
    def traffic(self, lineage: Model) -> str | None:
        told = [f"{lineage.candidate_percent:g} %"] if lineage.candidate_percent else []
        return ", ".join([*told, *(["copies"] if lineage.shadow else [])]) or None
