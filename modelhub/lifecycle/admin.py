"""Operations, state changes and loaderd itself in the admin: to be read, never written."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.decorators import display

from modelhub.choice_filter import choice_filter
from modelhub.lifecycle.models import LineageChange, LoaderStatus, Operation, StateChange
from modelhub.lifecycle.observed import loader_view
from modelhub.read_only_admin import ReadOnlyAdmin
from modelhub.registry.models import large_columns

OPERATION_COLOURS = {"queued": "info", "running": "info", "succeeded": "success", "failed": "danger"}
STATE_COLOURS = {"loaded": "success", "loading": "info", "unloading": "info", "error": "danger"}

# Who hands commands over; see Operation.source.
SOURCES = ("api", "admin", "command", "inference", "demand", "python")


@admin.register(Operation)
class OperationAdmin(ReadOnlyAdmin):
    list_display = (
        "id",
        "shown_version",
        "kind",
        "shown_status",
        "phase",
        "requested_by_name",
        "source",
        "requested_at",
        "took",
    )
    list_filter = ("status", "kind", choice_filter("source", SOURCES), "requested_at")
    search_fields = ("version__model_id", "requested_by_name", "reason")
    search_help_text = "Model, user or reason"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Operation]:
        operations: QuerySet[Operation] = super().get_queryset(request)
        return operations.select_related("version", "requested_by").defer(*large_columns("version"))

    @display(description="Status", label=OPERATION_COLOURS, ordering="status")
    def shown_status(self, operation: Operation) -> str:
        return str(operation.status)

    @display(description="Model", ordering="version__model_id")
    def shown_version(self, operation: Operation) -> str:
        return "all models" if operation.version is None else operation.version.model_id

    @display(description="Took")
    def took(self, operation: Operation) -> str:
        """From the request to its end, or until now."""
        seconds = ((operation.finished_at or timezone.now()) - operation.requested_at).total_seconds()
        return f"{seconds:.2f} s"


@admin.register(StateChange)
class StateChangeAdmin(ReadOnlyAdmin):
    list_display = ("at", "version", "shown_from", "shown_to", "reason", "actor")
    list_filter = ("to_state", "from_state", "at")
    search_fields = ("version__model_id", "actor", "reason")
    search_help_text = "Model, who, or reason"

    def get_queryset(self, request: HttpRequest) -> QuerySet[StateChange]:
        changes: QuerySet[StateChange] = super().get_queryset(request)
        return changes.select_related("version", "operation").defer(*large_columns("version"))

    @display(description="From", label=STATE_COLOURS, ordering="from_state")
    def shown_from(self, change: StateChange) -> str:
        return str(change.from_state)

    @display(description="To", label=STATE_COLOURS, ordering="to_state")
    def shown_to(self, change: StateChange) -> str:
        return str(change.to_state)


@admin.register(LineageChange)
class LineageChangeAdmin(ReadOnlyAdmin):
    """Who was live when, why, by whom."""

    list_display = ("at", "lineage", "alias", "kind", "shown_version", "shown_previous", "reason", "actor")
    list_filter = ("kind", "at")
    search_fields = ("lineage__name", "alias", "actor", "reason")
    search_help_text = "Lineage, alias, who, or reason"

    def get_queryset(self, request: HttpRequest) -> QuerySet[LineageChange]:
        changes: QuerySet[LineageChange] = super().get_queryset(request)
        changes = changes.select_related("lineage", "version", "previous", "operation")
        return changes.defer(*large_columns("version"), *large_columns("previous"))

    @display(description="Leads to")
    def shown_version(self, change: LineageChange) -> str:
        return leads_to(change)

    @display(description="Led to")
    def shown_previous(self, change: LineageChange) -> str:
        return change.details.get("previous_id") or (change.previous.model_id if change.previous else "")


def leads_to(change: LineageChange) -> str:
    """The model that the alias leads to after the change, or the traffic that was set."""
    if change.kind == LineageChange.Kind.TRAFFIC:
        percent, is_shadow = change.details.get("candidate_percent", 0.0), change.details.get("shadow")
        return f"{percent:g} % to candidate{', copies too' if is_shadow else ''}"
    return change.details.get("version_id") or (change.version.model_id if change.version else "nowhere")


@admin.register(LoaderStatus)
class LoaderStatusAdmin(ReadOnlyAdmin):
    list_display = ("pid", "shown_reachable", "started_at", "observed_at", "stopped_at")

    @display(description="Reachable", boolean=True)
    def shown_reachable(self, status: LoaderStatus) -> bool:
        return loader_view().reachable
