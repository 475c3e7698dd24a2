"""A model in the admin: the list, whose rows are live, and a page with tabs. People write its policy only."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet, Value
from django.db.models.functions import Coalesce
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.decorators import display
from unfold.templatetags.unfold_list import result_headers

from loaderd.rules import LIVE
from modelhub.console.admin.filters import FILTERS, CountedList
from modelhub.console.admin.history import delete_history, history_counts
from modelhub.console.admin.model_commands import ModelCommands
from modelhub.console.model_page.cells import cells_of
from modelhub.console.model_page.look import is_held, looks
from modelhub.console.model_page.offers import rights_of
from modelhub.console.model_page.rows import rows_of
from modelhub.console.model_page.views import first_view
from modelhub.console.registering.access import may_register
from modelhub.lifecycle.models import LineageChange
from modelhub.lifecycle.observed import loader_view
from modelhub.registry.models import MAX_INSTANCES, MAX_QUEUE, Alias, DiscoveryRun, ModelVersion, large_columns

_AT_ONCE = ["pinned", "priority", "autoload", "keep_alive_seconds", "cache_enabled", "cache_ttl_seconds"]
_AT_NEXT_LOAD = [
    *("instances", "threads", "max_batch_size", "max_queue", "precision", "memory_limit_mb", "load_timeout_seconds"),
]
TABS = (
    ("overview", "Overview"),
    ("versions", "Versions"),
    ("metrics", "Metrics"),
    ("operations", "Operations"),
    ("log", "Log"),
    ("files", "Files"),
    ("playground", "Playground"),
    ("policy", "Policy"),
    ("audit", "Audit"),
)
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_LABELS = {
    "autoload": "Load on demand (autoload)",
    "keep_alive_seconds": "Keep-alive, seconds",
    "load_timeout_seconds": "Load timeout, seconds",
    "memory_limit_mb": "Memory limit, MiB",
    "cache_enabled": "Response cache",
    "cache_ttl_seconds": "Answers are kept for, seconds",
    "instances": "Instances (processes)",
    "max_queue": "Queue, predictions",
}
# What the database would refuse too, said at its field: (lowest, highest), and whether the lowest itself is allowed.
_BOUNDS: dict[str, tuple[float, float | None, bool]] = {
    "priority": (0, 100, True),
    "keep_alive_seconds": (0, None, False),
    "load_timeout_seconds": (0, None, False),
    "threads": (1, None, True),
    "max_batch_size": (1, None, True),
    "memory_limit_mb": (1, None, True),
    "instances": (1, MAX_INSTANCES, True),
    "max_queue": (1, MAX_QUEUE, True),
    "cache_ttl_seconds": (0, None, False),
}


class VersionList(CountedList):
    """A page of models with what is true of them now: one look at loaderd and at the latencies for all rows."""

    def get_queryset(self, *args: Any, **kwargs: Any) -> QuerySet[ModelVersion]:
        return super().get_queryset(*args, **kwargs).defer(*large_columns())

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        rights = rights_of(request.user)
        versions: list[Any] = list(self.result_list)  # type: ignore[has-type]
        names = {version.pk: [alias.name for alias in version.aliases.all()] for version in versions}
        for row in rows_of(versions, names, loader_view()):
            row.version.cells = cells_of(row, rights)
        self.result_list = versions
        self.columns = len(self.model_admin.list_display)
        self.last_discovery = DiscoveryRun.objects.first()
        self.may_discover = self.model_admin.has_discover_permission(request)
        self.may_register = may_register(request.user)
        self.may_optimize = self.model_admin.has_unload_permission(request)

    @cached_property
    def headers(self) -> list[dict[str, Any]]:
        return list(result_headers(self))


class PolicyForm(ModelForm):
    """What people may change of a model; a bad value is told at its field."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, label in _LABELS.items():
            if name in self.fields:  # who may only look has no field
                self.fields[name].label = label
        if "cache_enabled" in self.fields:
            widget = self.fields["cache_enabled"].widget
            widget.choices = [("unknown", "As the policy says"), ("true", "Yes"), ("false", "No")]

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        for name, (lowest, highest, is_allowed) in _BOUNDS.items():
            value = self.cleaned_data.get(name)
            if value is None:
                continue
            if value < lowest or (value == lowest and not is_allowed) or (highest is not None and value > highest):
                begin = "at least" if is_allowed else "more than"
                end = "" if highest is None else f", at most {highest:g}"
                self.add_error(name, f"{begin} {lowest:g}{end}.".capitalize())
        return cleaned


@admin.register(ModelVersion)
class ModelVersionAdmin(ModelCommands):
    list_display = [
        *("shown_model", "state", "health", "shown_version", "kind", "memory", "p95", "last_used", "actions_of_row"),
    ]
    list_filter = FILTERS
    list_filter_sheet = True
    list_fullwidth = True
    form = PolicyForm
    list_select_related = ["lineage"]
    list_per_page = 50
    list_before_template = "console/discovery_bar.html"
    change_list_template = "console/model/list.html"
    change_form_template = "console/model/page.html"
    search_fields = ["model_id", "name", "lineage__name"]
    search_help_text = "Model, name or lineage"
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    warn_unsaved_form = True
    fieldsets = [
        ("Counts at once", {"fields": _AT_ONCE}),
        ("Counts from the next load on", {"fields": _AT_NEXT_LOAD}),
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[ModelVersion]:
        return super().get_queryset(request).select_related("lineage", "approved_by").prefetch_related("aliases")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[VersionList]:
        return VersionList

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        shown: dict[str, Any] = {"tabs": TABS, "title": object_id}
        version = self.get_object(request, object_id)
        if version is not None and self.has_view_or_change_permission(request, version):
            shown |= first_view(request, version.pk) | {"title": version.model_id, "subtitle": None}
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **shown})

    def response_post_save_change(self, request: HttpRequest, obj: ModelVersion) -> HttpResponse:
        """Back to where the policy was changed."""
        looks.forget()
        return redirect(reverse("admin:registry_modelversion_change", args=[obj.pk]) + "#policy")

    # What people may change

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # discovery adds

    def has_delete_permission(self, request: HttpRequest, obj: ModelVersion | None = None) -> bool:
        return super().has_delete_permission(request, obj) and (obj is None or not is_held(obj))

    def save_model(self, request: HttpRequest, obj: ModelVersion, form: ModelForm, change: bool) -> None:
        # Only what was edited: the form may be minutes old, and loaderd writes the rest. loaderd hears of it by the
        # signal of this save.
        obj.save(update_fields=form.changed_data)

    def construct_change_message(
        self, request: HttpRequest, form: ModelForm, formsets: Any, add: bool = False
    ) -> str | list[Any]:
        """With the values, which Django's own list of fields leaves out."""
        if not form.changed_data:
            return super().construct_change_message(request, form, formsets, add)
        told = (
            f"{name} = {'empty' if form.cleaned_data[name] is None else form.cleaned_data[name]} "
            f"(was {'empty' if form.initial.get(name) is None else form.initial[name]})"
            for name in form.changed_data
        )
        return f"Set {', '.join(told)}."

    def delete_model(self, request: HttpRequest, obj: ModelVersion) -> None:
        self.delete_queryset(request, ModelVersion.objects.filter(pk=obj.pk))

    @transaction.atomic
    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[ModelVersion]) -> None:
        # Since the question was asked somebody may have loaded one.
        rows = ModelVersion.objects.select_for_update().filter(pk__in=queryset.values("pk")).order_by("pk")
        if held := [row.model_id for row in rows if is_held(row)]:
            raise PermissionDenied(f"{', '.join(held)} cannot be deleted while loaded; unload first.")
        forget_live(rows, request.user)
        delete_history([row.pk for row in rows])
        rows.delete()

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> tuple[Any, Any, set[str], Any]:
        """A model takes its history along, although nobody may delete a single line of that.

        Names and counts only: Django's own way reads every row of it, hundreds of thousands after a week.
        """
        chosen = [version.pk for version in objs]
        names = [str(version) for version in objs]
        counts = {str(self.model._meta.verbose_name_plural): len(names), **history_counts(chosen)}
        may_not = any(not self.has_delete_permission(request, version) for version in objs)
        # `live` goes with its model; another alias is a wish of somebody, who takes it away first.
        kept = Alias.objects.filter(version__in=chosen).exclude(name=LIVE).select_related("lineage", "version")
        missing = {str(self.model._meta.verbose_name)} if may_not else set()
        shown = [*names, *(f"{count} {name}" for name, count in list(counts.items())[1:])]
        return shown, counts, missing, [str(alias) for alias in kept]

    # What is shown: templates/console/model/list.html draws the rows, these name the columns and how they are sorted

    @display(description="Model", ordering="model_id")
    def shown_model(self, version: ModelVersion) -> str:
        return version.model_id

    @display(description="State", ordering="status")
    def state(self, version: Any) -> SafeString:
        return version.cells["state"]

    @display(description="Health", ordering="health_status")
    def health(self, version: Any) -> SafeString:
        return version.cells["health"]

    @display(description="Version, aliases", ordering="version")
    def shown_version(self, version: ModelVersion) -> str:
        return version.version

    @display(description="Type, framework", ordering="lineage__type")
    def kind(self, version: ModelVersion) -> str:
        return f"{version.lineage.get_type_display()}, {version.framework}"

    @display(description="Memory", ordering=Coalesce("private_bytes", 0))
    def memory(self, version: Any) -> SafeString:
        return version.cells["memory"]

    @display(description="p95, 5 min")
    def p95(self, version: Any) -> SafeString:
        return version.cells["p95"]

    @display(description="Last used", ordering=Coalesce("last_used_at", Value(_LONG_AGO)))
    def last_used(self, version: Any) -> SafeString:
        return version.cells["used"]

    @display(description="Actions")
    def actions_of_row(self, version: Any) -> SafeString:
        return version.cells["actions"]


def forget_live(versions: QuerySet[ModelVersion], user: Any) -> None:
    """Takes `live` from versions that are about to be deleted, and leaves it in their lineages' history."""
    aliases = list(Alias.objects.filter(version__in=versions, name=LIVE).select_related("lineage", "version"))
    LineageChange.objects.bulk_create(
        LineageChange(
            lineage=alias.lineage,
            alias=LIVE,
            kind=LineageChange.Kind.REMOVE,
            previous=alias.version,
            details={"version_id": None, "previous_id": alias.version.model_id},
            reason="the model was deleted",
            actor=user.get_username(),
            at=timezone.now(),
        )
        for alias in aliases
    )
    for alias in aliases:
        alias.delete()  # one by one: loaderd hears of it by the signal
