"""Alerts and measurements in the admin: to be read; a person acknowledges alerts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from unfold.decorators import display
from unfold.paginator import InfinitePaginator

from loaderd.errors import LoaderdError
from modelhub.choice_filter import choice_filter
from modelhub.read_only_admin import ReadOnlyAdmin
from modelhub.telemetry.alerts import ACKNOWLEDGE_PERMISSION, acknowledge
from modelhub.telemetry.models import Alert, Comparison, Sample, Trace
from modelhub.telemetry.queries import RESOLUTIONS_SECONDS, comparison_view

ALERT_COLOURS = {"open": "danger", "acknowledged": "warning", "resolved": "success"}


def _with_names(rows: QuerySet, *versions: str, others: Iterable[str] = ()) -> QuerySet:
    """The rows with the names of their models, without the models' large columns."""
    own = [field.name for field in rows.model._meta.concrete_fields]
    names = [f"{version}__{column}" for version in versions for column in ("model_id", "version")]
    return rows.select_related(*versions, *(name.partition("__")[0] for name in others)).only(*own, *names, *others)


class AlertStateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("open", "Open"), ("acknowledged", "Acknowledged, not over"), ("resolved", "Resolved")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Alert]) -> QuerySet[Alert]:
        match self.value():
            case "open":
                return queryset.filter(resolved_at=None, acknowledged_at=None)
            case "acknowledged":
                return queryset.filter(resolved_at=None, acknowledged_at__isnull=False)
            case "resolved":
                return queryset.filter(resolved_at__isnull=False)
        return queryset


class AlertKindFilter(admin.SimpleListFilter):
    """Its choices come from code, so they cost no query."""

    title = "kind"
    parameter_name = "kind"
    KINDS = (
        *("load_seconds", "memory", "error_rate", "unhealthy", "restarts", "gave_up", "thrashing", "no_memory"),
        "over_budget",
    )

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(kind, kind.replace("_", " ").capitalize()) for kind in self.KINDS]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Alert]) -> QuerySet[Alert]:
        return queryset.filter(kind=self.value()) if self.value() else queryset


@admin.register(Alert)
class AlertAdmin(ReadOnlyAdmin):
    list_display = ("message", "shown_state", "kind", "version", "opened_at", "last_seen_at", "resolved_at")
    list_filter = (AlertStateFilter, AlertKindFilter, "opened_at")
    search_fields = ("version__model_id", "message", "acknowledged_by_name")
    search_help_text = "Model, message, or who acknowledged it"
    actions = ("acknowledge_selected",)
    exclude = ("acknowledged_by",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Alert]:
        return _with_names(super().get_queryset(request), "version")

    def has_acknowledge_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(ACKNOWLEDGE_PERMISSION)

    @admin.action(description="Acknowledge selected alerts", permissions=["acknowledge"])
    def acknowledge_selected(self, request: HttpRequest, queryset: QuerySet[Alert]) -> None:
        for alert in queryset:
            try:
                acknowledge(alert, user=request.user)
            except LoaderdError as error:
                self.message_user(request, error.message, messages.ERROR)
            else:
                self.log_change(request, alert, "Acknowledged.")
                self.message_user(request, f"Acknowledged: {alert.message}", messages.SUCCESS)

    @display(description="State", label=ALERT_COLOURS)
    def shown_state(self, alert: Alert) -> str:
        return alert.state


ROUTES = ("live", "candidate", "direct")  # of Trace.route


class TraceStatusFilter(admin.SimpleListFilter):
    """By the class of the answer's HTTP status; its choices cost no query."""

    title = "status"
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("2", "2xx, answered"), ("4", "4xx, refused"), ("5", "5xx, failed")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Trace]) -> QuerySet[Trace]:
        if self.value() not in ("2", "4", "5"):
            return queryset
        lowest = int(self.value()) * 100
        return queryset.filter(status__gte=lowest, status__lt=lowest + 100)


@admin.register(Trace)
class TraceAdmin(ReadOnlyAdmin):
    list_display = ("at", "version", "status", "route", "user", "items", "batch_items", "total", "queue", "compute")
    list_filter = (TraceStatusFilter, choice_filter("route", ROUTES), "at")
    search_fields = ("version__model_id", "user")
    search_help_text = "Model or user"
    paginator = InfinitePaginator  # counting a week of them takes longer than the page

    def get_queryset(self, request: HttpRequest) -> QuerySet[Trace]:
        return _with_names(super().get_queryset(request), "version")

    @display(description="Total")
    def total(self, trace: Trace) -> str | None:
        return _milliseconds(trace.total_seconds)

    @display(description="In the queue")
    def queue(self, trace: Trace) -> str | None:
        return _milliseconds(trace.queue_seconds)

    @display(description="Computing")
    def compute(self, trace: Trace) -> str | None:
        return _milliseconds(trace.compute_seconds)


class ResolutionFilter(admin.SimpleListFilter):
    title = "length"
    parameter_name = "seconds"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(seconds), f"{seconds} seconds") for seconds in RESOLUTIONS_SECONDS]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Sample]) -> QuerySet[Sample]:
        return queryset.filter(seconds=self.value()) if (self.value() or "").isdecimal() else queryset


@admin.register(Sample)
class SampleAdmin(ReadOnlyAdmin):
    list_display = ("at", "shown_of", "seconds", "requests", "errors", "queued", "memory", "gpu_memory", "available")
    list_filter = (ResolutionFilter, "at")
    search_fields = ("version__model_id",)
    search_help_text = "Model"
    ordering = ("-pk",)  # written last first: sorting a week of them by their time takes longer than the page
    paginator = InfinitePaginator
    exclude = ("histogram",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Sample]:
        return _with_names(super().get_queryset(request), "version").defer("histogram")

    @display(description="Of")
    def shown_of(self, sample: Sample) -> str:
        return "host" if sample.version is None else sample.version.model_id

    @display(description="Memory")
    def memory(self, sample: Sample) -> str | None:
        return _bytes(sample.private_bytes)

    @display(description="GPU memory")
    def gpu_memory(self, sample: Sample) -> str | None:
        return _bytes(sample.gpu_bytes)

    @display(description="Machine has left")
    def available(self, sample: Sample) -> str | None:
        return _bytes(sample.available_bytes)


@admin.register(Comparison)
class ComparisonAdmin(ReadOnlyAdmin):
    list_display = ("lineage", "live", "candidate", "since", "last_at", "disagreement", "error_rates", "latencies")
    search_fields = ("lineage__name",)
    search_help_text = "Lineage"
    exclude = ("live_histogram", "candidate_histogram")
    readonly_fields = ("disagreement", "error_rates", "latencies")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Comparison]:
        rows = super().get_queryset(request)
        return _with_names(rows, "live", "candidate", others=("lineage__name", "lineage__traffic_changed_at"))

    @display(description="Answered differently")
    def disagreement(self, row: Comparison) -> str:
        share = comparison_view(row, row.lineage)["disagreement_rate"]
        return "nothing compared" if share is None else f"{share:.2%} of {row.compared}"

    @display(description="Errors, live and candidate")
    def error_rates(self, row: Comparison) -> str:
        view = comparison_view(row, row.lineage)
        return " and ".join(f"{view[side]['error_rate']:.2%}" for side in ("live", "candidate"))

    @display(description="95 % within, live and candidate")
    def latencies(self, row: Comparison) -> str:
        view = comparison_view(row, row.lineage)
        found = (view[side]["latency_ms"]["p95"] for side in ("live", "candidate"))
        return " and ".join("unknown" if value is None else f"{value:.1f} ms" for value in found)


def _milliseconds(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds * 1000:.1f} ms"


def _bytes(count: int | None) -> str | None:
    return None if count is None else filesizeformat(count)
