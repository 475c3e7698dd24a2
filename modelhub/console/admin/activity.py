"""Operations, state changes, who was live, and loaderd itself in the admin: to be read, never written."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display

from modelhub.actors import named
from modelhub.choice_filter import choice_filter
from modelhub.console.admin.read_only import NOTHING, Fact, ReadOnlyAdmin, because, model_link
from modelhub.console.following import TEMPLATE, followed
from modelhub.console.fragments import fragment
from modelhub.console.templatetags.console import moment, seconds, size, state
from modelhub.console.templatetags.records import in_json, short
from modelhub.lifecycle.models import LineageChange, LoaderStatus, Operation, StateChange
from modelhub.lifecycle.observed import loader_view
from modelhub.registry.models import large_columns

# Who hands commands over; see Operation.source.
SOURCES = ("api", "admin", "command", "inference", "demand", "python")
_SOURCE_WORDS = {
    "api": "the API",
    "admin": "this console",
    "command": "a command",
    "inference": "the inference door",
    "demand": "a prediction that needed it",
    "python": "a Python program",
}
MOST_CHANGES = 50


@admin.register(Operation)
class OperationAdmin(ReadOnlyAdmin):
    list_display = ("what", "shown_status", "outcome", "shown_by", "requested", "took")
    list_filter = ("status", "kind", choice_filter("source", SOURCES), "requested_at")
    search_fields = ("version__model_id", "requested_by_name", "reason")
    search_help_text = "Model, user or reason"
    change_form_template = "console/operation_page/page.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Operation]:
        operations: QuerySet[Operation] = super().get_queryset(request)
        return operations.select_related("version__lineage").defer(*large_columns("version"))

    def heading(self, record: Operation) -> str:
        return record.what[:1].upper() + record.what[1:]

    def facts(self, record: Operation) -> list[Fact]:
        parameters = {name: value for name, value in record.parameters.items() if name != "desired_before"}
        return [
            ("Model", model_link(record.version, "all models")),
            ("Asked for by", named(record.requested_by_name, record.source)),
            ("Through", _SOURCE_WORDS.get(record.source, record.source) or NOTHING),
            ("Reason", record.reason or NOTHING),
            ("Asked for", moment(record.requested_at)),
            ("Taken by loaderd", moment(record.started_at)),
            ("Ended", moment(record.finished_at)),
            ("Took", seconds(record.took_seconds)),
            ("Deliveries", record.attempts),
            *([("Parameters", in_json(parameters))] if parameters else []),
            ("Id", format_html('<span class="mh-mono">{}</span>', record.pk)),
        ]

    def shown(self, request: HttpRequest, record: Operation) -> dict[str, Any]:
        changes = StateChange.objects.filter(operation=record).select_related("version")
        moves = LineageChange.objects.filter(operation=record).select_related("lineage", "version", "previous")
        return {
            "operation": record,
            "live": fragment(request, TEMPLATE, {"followed": followed(record, request.user)}),
            "changes": changes.defer(*large_columns("version")).order_by("at", "pk")[:MOST_CHANGES],
            "moves": [
                {"at": move.at, "name": f"{move.lineage}/{move.alias}", "to": move.leads_to}
                for move in moves.defer(*large_columns("version"), *large_columns("previous"))[:MOST_CHANGES]
            ],
            "raw": {name: value for name in ("result", "error") if (value := getattr(record, name)) is not None},
        }

    @display(description="Operation", ordering="kind")
    def what(self, operation: Operation) -> str:
        return self.heading(operation)

    @display(description="State", ordering="status")
    def shown_status(self, operation: Operation) -> SafeString:
        return state(operation.status)

    @display(description="What came of it")
    def outcome(self, operation: Operation) -> SafeString:
        told = followed(operation, None, has_ways=False).now if operation.is_ended else operation.phase
        return short(told or "waits to be taken")

    @display(description="Asked for by", ordering="requested_by_name")
    def shown_by(self, operation: Operation) -> SafeString:
        return format_html(
            '{} <span class="mh-subtle mh-small">{}</span>',
            named(operation.requested_by_name, operation.source),
            _SOURCE_WORDS.get(operation.source, operation.source),
        )

    @display(description="When", ordering="requested_at")
    def requested(self, operation: Operation) -> SafeString:
        return moment(operation.requested_at)

    @display(description="Took")
    def took(self, operation: Operation) -> SafeString:
        """From the request to its end, or until now."""
        taken = operation.took_seconds
        if taken is None:
            return moment(operation.requested_at, "for")
        return format_html('<span class="mh-number">{}</span>', seconds(taken))


@admin.register(StateChange)
class StateChangeAdmin(ReadOnlyAdmin):
    list_display = ("change", "shown_from", "shown_to", "why", "by", "when")
    list_filter = ("to_state", "from_state", "at")
    search_fields = ("version__model_id", "actor", "reason")
    search_help_text = "Model, who, or reason"
    fields = ("of_model", "shown_from", "shown_to", "reason", "by", "when", "by_operation")

    def get_queryset(self, request: HttpRequest) -> QuerySet[StateChange]:
        changes: QuerySet[StateChange] = super().get_queryset(request)
        return changes.select_related("version", "operation__version").defer(
            *large_columns("version"), *large_columns("operation__version")
        )

    def heading(self, record: StateChange) -> str:
        return f"{record.version.model_id}: {record.from_state} to {record.to_state}"

    @display(description="Why")
    def why(self, change: StateChange) -> SafeString:
        return because(change.reason)

    @display(description="Model", ordering="version__model_id")
    def change(self, change: StateChange) -> str:
        return change.version.model_id

    @display(description="Model")
    def of_model(self, change: StateChange) -> SafeString:
        return model_link(change.version)

    @display(description="From", ordering="from_state")
    def shown_from(self, change: StateChange) -> SafeString:
        return state(change.from_state)

    @display(description="To", ordering="to_state")
    def shown_to(self, change: StateChange) -> SafeString:
        return state(change.to_state)

    @display(description="By", ordering="actor")
    def by(self, change: StateChange) -> str:
        return change.actor

    @display(description="When", ordering="at")
    def when(self, change: StateChange) -> SafeString:
        return moment(change.at)

    @display(description="By the operation")
    def by_operation(self, change: StateChange) -> SafeString:
        return operation_link(change.operation)


@admin.register(LineageChange)
class LineageChangeAdmin(ReadOnlyAdmin):
    """Who was live when, why, by whom."""

    list_display = ("name", "shown_kind", "shown_version", "shown_previous", "why", "by", "when")
    list_filter = ("kind", "at")
    search_fields = ("lineage__name", "alias", "actor", "reason")
    search_help_text = "Lineage, alias, who, or reason"
    fields = ("shown_lineage", "alias", "shown_kind", "shown_version", "shown_previous", "why", "by", "when",
              "by_operation")  # fmt: skip

    def get_queryset(self, request: HttpRequest) -> QuerySet[LineageChange]:
        changes: QuerySet[LineageChange] = super().get_queryset(request)
        changes = changes.select_related("lineage", "version", "previous", "operation__version")
        large = [name for path in ("version", "previous", "operation__version") for name in large_columns(path)]
        return changes.defer(*large)

    def heading(self, record: LineageChange) -> str:
        name = f"{record.lineage.name}/{record.alias}" if record.alias else record.lineage.name
        return f"{name}: {record.get_kind_display().lower()}, {record.leads_to}"

    @display(description="Name", ordering="lineage__name")
    def name(self, change: LineageChange) -> str:
        return f"{change.lineage.name}/{change.alias}" if change.alias else f"{change.lineage.name}, traffic"

    @display(description="Lineage")
    def shown_lineage(self, change: LineageChange) -> SafeString:
        url = reverse("admin:registry_model_change", args=[change.lineage_id])
        return format_html('<a class="mh-link" href="{}">{}</a>', url, change.lineage.name)

    @display(description="What", ordering="kind")
    def shown_kind(self, change: LineageChange) -> str:
        return change.get_kind_display()

    @display(description="Leads to")
    def shown_version(self, change: LineageChange) -> str | SafeString:
        if change.kind == LineageChange.Kind.TRAFFIC or change.version is None:
            return change.leads_to
        return model_link(change.version)

    @display(description="Led to before")
    def shown_previous(self, change: LineageChange) -> str | SafeString:
        return model_link(change.previous, change.details.get("previous_id") or "")

    @display(description="Why")
    def why(self, change: LineageChange) -> SafeString:
        return because(change.reason)

    @display(description="By", ordering="actor")
    def by(self, change: LineageChange) -> str:
        return change.actor

    @display(description="When", ordering="at")
    def when(self, change: LineageChange) -> SafeString:
        return moment(change.at)

    @display(description="By the operation")
    def by_operation(self, change: LineageChange) -> SafeString:
        return operation_link(change.operation)


def operation_link(operation: Operation | None) -> SafeString:
    """A link to the operation's page, in words; a dash without one."""
    if operation is None:
        return NOTHING
    url = reverse("admin:lifecycle_operation_change", args=[operation.pk])
    return format_html('<a class="mh-link mh-break" href="{}">{}</a>', url, operation.what)


@admin.register(LoaderStatus)
class LoaderStatusAdmin(ReadOnlyAdmin):
    list_display = ("name", "reachable", "started", "heard", "stopped")
    fields = ("reachable", "pid", "started", "heard", "stopped", "host", "budget", "gpus", "inference", "facts_in_full")

    def heading(self, record: LoaderStatus) -> str:
        return "loaderd"

    @display(description="Daemon")
    def name(self, status: LoaderStatus) -> str:
        return f"loaderd, process {status.pid}"

    @display(description="State")
    def reachable(self, status: LoaderStatus) -> SafeString:
        if not loader_view().reachable:
            return state("unreachable")
        return format_html('<span class="mh-state mh-state--good">{}</span>', "running")

    @display(description="Up since")
    def started(self, status: LoaderStatus) -> SafeString:
        return moment(status.started_at)

    @display(description="Heard")
    def heard(self, status: LoaderStatus) -> SafeString:
        return moment(status.observed_at)

    @display(description="Said goodbye")
    def stopped(self, status: LoaderStatus) -> SafeString:
        return (
            moment(status.stopped_at) if status.stopped_at else format_html('<span class="mh-subtle">{}</span>', "no")
        )

    @display(description="Host")
    def host(self, status: LoaderStatus) -> str | None:
        host, memory = status.facts.get("host") or {}, status.facts.get("memory") or {}
        if not host:
            return None
        left = f"{size(memory.get('available_bytes'))} of {size(memory.get('total_bytes'))} free"
        return f"{host.get('cpu_count')} processors, {left}; Python {status.facts.get('python')}"

    @display(description="Budget of the models")
    def budget(self, status: LoaderStatus) -> str | None:
        budget = status.facts.get("budget") or {}
        if not budget:
            return None
        held = f"{size(budget.get('used_bytes'))} held, {size(budget.get('reserved_bytes'))} reserved"
        limit = budget.get("budget_bytes")
        return f"{held}, {'no limit' if limit is None else f'of {size(limit)}'}"

    @display(description="GPUs")
    def gpus(self, status: LoaderStatus) -> str:
        found = status.facts.get("gpus") or []
        names = ", ".join(f"{gpu.get('name')} ({size(gpu.get('memory_total_bytes'))})" for gpu in found)
        return names or f"none: {status.facts.get('no_gpu_reason') or 'nothing was found'}"

    @display(description="Inference door")
    def inference(self, status: LoaderStatus) -> str | None:
        door = status.facts.get("inference") or {}
        return f"http://{door.get('host')}:{door.get('port')}/v2" if door else None

    @display(description="All that it says")
    def facts_in_full(self, status: LoaderStatus) -> SafeString:
        return in_json(status.facts)
