"""Operations, state changes and loaderd itself in the admin: to be read, never written."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.admin import ModelAdmin
from unfold.decorators import display

from modelhub.lifecycle.models import LoaderStatus, Operation, StateChange
from modelhub.lifecycle.observed import loader_view

OPERATION_COLOURS = {"queued": "info", "running": "info", "succeeded": "success", "failed": "danger"}
STATE_COLOURS = {"loaded": "success", "loading": "info", "unloading": "info", "error": "danger"}

# Columns of a model's row that may be large and are not shown here.
_HEAVY = tuple(f"version__{name}" for name in ("manifest", "config", "metadata", "performance_metrics", "signature"))


class ReadOnlyAdmin(ModelAdmin):
    """Written by the program alone."""

    list_per_page = 50
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Operation)
class OperationAdmin(ReadOnlyAdmin):
    list_display = (
        "id",
        "version",
        "kind",
        "shown_status",
        "phase",
        "requested_by_name",
        "source",
        "requested_at",
        "took",
    )
    list_filter = ("status", "kind", "source", "requested_at")
    search_fields = ("version__model_id", "requested_by_name", "reason")
    search_help_text = "Model, user or reason"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Operation]:
        operations: QuerySet[Operation] = super().get_queryset(request)
        return operations.select_related("version", "requested_by").defer(*_HEAVY)

    @display(description="Status", label=OPERATION_COLOURS, ordering="status")
    def shown_status(self, operation: Operation) -> str:
        return str(operation.status)

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
        return changes.select_related("version", "operation").defer(*_HEAVY)

    @display(description="From", label=STATE_COLOURS, ordering="from_state")
    def shown_from(self, change: StateChange) -> str:
        return str(change.from_state)

    @display(description="To", label=STATE_COLOURS, ordering="to_state")
    def shown_to(self, change: StateChange) -> str:
        return str(change.to_state)


@admin.register(LoaderStatus)
class LoaderStatusAdmin(ReadOnlyAdmin):
    list_display = ("pid", "shown_reachable", "started_at", "observed_at", "stopped_at")

    @display(description="Reachable", boolean=True)
    def shown_reachable(self, status: LoaderStatus) -> bool:
        return loader_view().reachable
