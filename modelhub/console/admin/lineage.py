"""A lineage in the admin: who is live, its aliases and traffic, its versions, and who was live when."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.forms import ModelForm
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display

from loaderd.rules import CANDIDATE, LIVE
from modelhub.console.admin.lineage_commands import LineageCommands
from modelhub.console.templatetags.console import moment, state
from modelhub.registry.choices import Status
from modelhub.registry.models import Alias, Model


@admin.register(Model)
class LineageAdmin(LineageCommands):
    list_display = ["name", "type", "version_count", "loaded_count", "live", "traffic", "created"]
    list_filter = ["type"]
    list_per_page = 50
    search_fields = ["name", "versions__model_id"]
    search_help_text = "Lineage or model"
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    fields = ["description"]
    change_form_template = "console/lineage/page.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Model]:
        counts = {
            "version_total": Count("versions", distinct=True),
            "loaded_total": Count("versions", filter=Q(versions__status=Status.LOADED), distinct=True),
        }
        live, candidate = (Alias.objects.filter(lineage=OuterRef("pk"), name=name) for name in (LIVE, CANDIDATE))
        leads_to = {
            "live_id": Subquery(live.values("version__model_id")),
            "live_status": Subquery(live.values("version__status")),
            "candidate_status": Subquery(candidate.values("version__status")),
        }
        return super().get_queryset(request).annotate(**counts, **leads_to)

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field is not None and db_field.name == "description":
            field.widget.attrs.update(rows=3, **{"class": "mh-input"})
        return field

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
    def live(self, lineage: Any) -> SafeString | None:
        """The live version, and its state when it is not loaded."""
        if lineage.live_id is None:
            return None
        shown = "" if lineage.live_status == Status.LOADED else state(lineage.live_status)
        return format_html("{} {}", lineage.live_id, shown)

    @display(description="To candidate", ordering="candidate_percent")
    def traffic(self, lineage: Any) -> SafeString | str | None:
        """What people want to go to the candidate, and whether it can."""
        told = [f"{lineage.candidate_percent:g} %"] if lineage.candidate_percent else []
        told += ["copies"] if lineage.shadow else []
        if not told:
            return None
        if lineage.candidate_status == Status.LOADED:
            return ", ".join(told)
        why = f"candidate is {lineage.candidate_status}" if lineage.candidate_status else "there is no candidate"
        return format_html('{} <span class="mh-tag">nothing goes: {}</span>', ", ".join(told), why)

    @display(description="Since", ordering="created_at")
    def created(self, lineage: Model) -> SafeString:
        return moment(lineage.created_at)
