"""A model in the admin: the list, and a page that shows what it is and does. People write its policy only."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.decorators import display
from unfold.views import ChangeList

from loaderd.rules import LIVE
from modelhub.console.admin.filters import AttentionFilter, FrameworkFilter
from modelhub.console.admin.history import delete_history, history_counts
from modelhub.console.admin.model_commands import ModelCommands
from modelhub.lifecycle.models import LineageChange
from modelhub.lifecycle.observed import effective_status, known, loader_view
from modelhub.registry.approval import needs_approval
from modelhub.registry.choices import DesiredState, Status
from modelhub.registry.models import Alias, DiscoveryRun, ModelVersion, large_columns

STATUS_COLOURS = {
    "loaded": "success",
    "loading": "info",
    "unloading": "info",
    "error": "danger",
    "unreachable": "warning",
}
HEALTH_COLOURS = {"Healthy": "success", "Degraded": "warning", "Unhealthy": "danger"}
SHOWN_FILES = 100
_IN_MEMORY = (Status.LOADING, Status.LOADED, Status.UNLOADING)
_AT_ONCE = ["pinned", "priority", "autoload", "keep_alive_seconds"]
_AT_NEXT_LOAD = ["load_timeout_seconds", "threads", "max_batch_size", "memory_limit_mb"]
_POLICY = [*_AT_ONCE, *_AT_NEXT_LOAD]
# What the database would refuse too, said at its field: (lowest, highest), and whether the lowest itself is allowed.
_BOUNDS: dict[str, tuple[float, float | None, bool]] = {
    "priority": (0, 100, True),
    "keep_alive_seconds": (0, None, False),
    "load_timeout_seconds": (0, None, False),
    "threads": (1, None, True),
    "max_batch_size": (1, None, True),
    "memory_limit_mb": (1, None, True),
}
_SECTIONS = {
    "Status": [
        *("shown_status", "status_reason", "status_cause", "status_changed_at", "observed_at", "desired_state"),
        *("shown_aliases", "rolled_back_at", "rolled_back_reason", "process", "started_at", "phase"),
    ],
    "Health": [
        *("health", "shown_health_reason", "last_health_check_at", "heartbeat_at"),
        *("canary_result", "canary_at", "canary_time", "shown_canary"),
    ],
    "Policy, at once": _AT_ONCE,
    "Policy, from the next load on": _AT_NEXT_LOAD,
    "Memory": ["memory", "shared_memory", "gpu_memory", "peak_memory"],
    "Measured for the next load": ["measured_peak", "measured_resident", "measured_gpu", "measured_of"],
    "Usage": [
        *("load_count", "last_load", "average_load", "last_loaded_at", "usage_count", "item_count", "last_used_at"),
        *("average_latency", "failed_predictions", "error_count", "last_error"),
    ],
    "Artifact": [
        *("model_id", "name", "lineage", "type_label", "version", "path", "framework", "artifact_format", "size"),
        *("digest", "approval", "created_at", "discovered_at", "changed_at", "missing_since", "refusal"),
        *("performance_metrics", "files", "shown_metadata", "shown_config", "shown_signature"),
    ],
}


class VersionList(ChangeList):
    """A page of models with the status that is true now: one look at loaderd for all rows."""

    def get_queryset(self, *args: Any, **kwargs: Any) -> QuerySet[ModelVersion]:
        return super().get_queryset(*args, **kwargs).defer(*large_columns())

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        loader = loader_view()
        for version in self.result_list:
            version.status_now = effective_status(version, loader)
        self.last_discovery = DiscoveryRun.objects.first()
        self.may_discover = self.model_admin.has_discover_permission(request)
        self.may_optimize = self.model_admin.has_unload_permission(request)


class PolicyForm(ModelForm):
    """What people may change of a model; a bad value is told at its field."""

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
        *("model_id", "shown_status", "health", "type_label", "framework", "version", "shown_aliases", "size"),
        *("memory", "pinned", "load_count", "last_used_at"),
    ]
    list_filter = [
        *("status", "lineage__type", FrameworkFilter, "desired_state", "health_status", "pinned", "autoload"),
        AttentionFilter,
    ]
    form = PolicyForm
    list_select_related = ["lineage"]
    list_per_page = 50
    list_before_template = "console/discovery_bar.html"
    change_form_outer_before_template = "console/model_commands.html"
    search_fields = ["model_id", "name", "lineage__name"]
    search_help_text = "Model, name or lineage"
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    warn_unsaved_form = True
    fieldsets = [(title, {"fields": fields}) for title, fields in _SECTIONS.items()]
    readonly_fields = [name for fields in _SECTIONS.values() for name in fields if name not in _POLICY]

    def get_queryset(self, request: HttpRequest) -> QuerySet[ModelVersion]:
        return super().get_queryset(request).select_related("lineage", "approved_by").prefetch_related("aliases")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return VersionList

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        version = self.get_object(request, object_id)
        shown = {} if version is None else {"buttons": self.buttons_of(request, version), "remarks": remarks(version)}
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **shown})

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

    # What is shown

    @display(description="Status", label=STATUS_COLOURS, ordering="status")
    def shown_status(self, version: ModelVersion) -> str:
        return _status_now(version)

    @display(description="Health", label=HEALTH_COLOURS, ordering="health_status")
    def health(self, version: ModelVersion) -> str | None:
        return known(version.get_health_status_display(), _status_now(version))

    @display(description="Why")
    def shown_health_reason(self, version: ModelVersion) -> str | None:
        return known(version.health_reason, _status_now(version)) or None

    @display(description="Canary")
    def canary_result(self, version: ModelVersion) -> str | None:
        return None if version.canary_ok is None else ("passed" if version.canary_ok else "failed")

    @display(description="Canary took")
    def canary_time(self, version: ModelVersion) -> str | None:
        return None if version.canary_seconds is None else f"{version.canary_seconds * 1000:.1f} ms"

    @display(description="Canary input and expected output")
    def shown_canary(self, version: ModelVersion) -> SafeString | None:
        return _json(version.canary)

    @display(description="Aliases")
    def shown_aliases(self, version: ModelVersion) -> str | None:
        return ", ".join(alias.name for alias in version.aliases.all()) or None

    @display(description="Pid")
    def process(self, version: ModelVersion) -> str | None:
        pid = known(version.pid, _status_now(version))
        return None if pid is None else str(pid)

    @display(description="Type", ordering="lineage__type")
    def type_label(self, version: ModelVersion) -> str:
        return version.lineage.get_type_display()

    @display(description="Size", ordering="size_bytes")
    def size(self, version: ModelVersion) -> str:
        return filesizeformat(version.size_bytes)

    @display(description="Memory", ordering="private_bytes")
    def memory(self, version: ModelVersion) -> str | None:
        return _bytes(known(version.private_bytes, _status_now(version)))

    @display(description="With its share of shared pages")
    def shared_memory(self, version: ModelVersion) -> str | None:
        return _bytes(known(version.pss_bytes, _status_now(version)))

    @display(description="GPU memory")
    def gpu_memory(self, version: ModelVersion) -> str | None:
        return _bytes(known(version.gpu_bytes, _status_now(version)))

    @display(description="Peak since the last load")
    def peak_memory(self, version: ModelVersion) -> str | None:
        return _bytes(version.peak_private_bytes)

    @display(description="Peak of the load")
    def measured_peak(self, version: ModelVersion) -> str | None:
        return _bytes(version.measured_peak_bytes)

    @display(description="Highest while serving")
    def measured_resident(self, version: ModelVersion) -> str | None:
        return _bytes(version.measured_resident_bytes)

    @display(description="Highest on the GPU")
    def measured_gpu(self, version: ModelVersion) -> str | None:
        return _bytes(version.measured_gpu_bytes)

    @display(description="Measured of")
    def measured_of(self, version: ModelVersion) -> str | None:
        if not version.measured_digest:
            return None
        which = "the present files" if version.measured_digest == version.digest else "other files, so it is estimated"
        return f"{which}, on {version.measured_device or 'cpu'}"

    @display(description="Last load")
    def last_load(self, version: ModelVersion) -> str | None:
        return None if version.last_load_seconds is None else f"{version.last_load_seconds:.3f} s"

    @display(description="Average load")
    def average_load(self, version: ModelVersion) -> str | None:
        return f"{version.average_load_seconds:.3f} s" if version.load_count else None

    @display(description="Average latency")
    def average_latency(self, version: ModelVersion) -> str | None:
        seconds = version.average_latency_seconds
        return None if seconds is None else f"{seconds * 1000:.1f} ms"

    @display(description="Failed predictions")
    def failed_predictions(self, version: ModelVersion) -> str:
        return f"{version.prediction_error_count} ({version.error_rate:.2%})"

    @display(description="Approval")
    def approval(self, version: ModelVersion) -> str:
        if needs_approval(version):
            old = "; the approved files were others" if version.approved_digest else ""
            return f"Missing: loading this format can run code{old}."
        if not version.is_approved:
            return "Not needed, unless loading says so: this format runs no code by itself."
        who = version.approved_by or "the operator of this machine, or a user who is gone,"
        when = f" at {version.approved_at:%Y-%m-%d %H:%M:%S %Z}" if version.approved_at else ""
        return f"By {who}{when}."

    @display(description="Files")
    def files(self, version: ModelVersion) -> SafeString:
        rows = [(file["path"], filesizeformat(file["size_bytes"])) for file in version.manifest]
        if len(rows) > SHOWN_FILES:
            rows = [*rows[:SHOWN_FILES], (f"and {len(rows) - SHOWN_FILES} more", "")]
        return format_html_join("", "<div>{} <span class='text-font-subtle-light'>{}</span></div>", rows)

    @display(description="metadata.json")
    def shown_metadata(self, version: ModelVersion) -> SafeString | None:
        return _json(version.metadata)

    @display(description="config.json")
    def shown_config(self, version: ModelVersion) -> SafeString | None:
        return _json(version.config)

    @display(description="Signature")
    def shown_signature(self, version: ModelVersion) -> SafeString | None:
        return _json(version.signature)


def is_held(version: ModelVersion) -> bool:
    """Whether the model is in memory or somebody wants it there."""
    return version.status in _IN_MEMORY or version.desired_state == DesiredState.LOADED


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


def remarks(version: ModelVersion) -> list[str]:
    """What somebody should know before they act on the model."""
    said = []
    if version.missing_since is not None:
        said.append(
            f"Its directory is gone since {version.missing_since:%Y-%m-%d %H:%M}; put it back or delete it here."
        )
    if version.refusal:
        said.append(f"Discovery refuses its directory. {version.refusal}")
    if version.status in _IN_MEMORY and version.is_stale_in_memory:
        said.append("Its files changed since it was loaded; unload and load it to use the new ones.")
    if version.rolled_back_at is not None:
        why = f": {version.rolled_back_reason}" if version.rolled_back_reason else ""
        said.append(f"A rollback left it at {version.rolled_back_at:%Y-%m-%d %H:%M}{why}.")
    if needs_approval(version):
        said.append(
            f"Loading the format {version.artifact_format} can run code. Approve it if you trust where these files "
            f"come from (digest {version.digest[:12]})."
        )
    return said


def _status_now(version: Any) -> str:
    """Looked up once a model; a list has done it for all its rows."""
    if not hasattr(version, "status_now"):
        version.status_now = effective_status(version, loader_view())
    return str(version.status_now)


def _bytes(count: int | None) -> str | None:
    return None if count is None else filesizeformat(count)


def _json(value: Any) -> SafeString | None:
    if value in (None, {}):
        return None
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return format_html("<pre class='max-h-96 overflow-auto text-xs'>{}</pre>", text)
