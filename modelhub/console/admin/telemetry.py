"""Alerts and measurements in the admin: to be read; a person acknowledges alerts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display
from unfold.paginator import InfinitePaginator

from loaderd.errors import LoaderdError
from modelhub.choice_filter import OfferedFilter, choice_filter
from modelhub.console.admin.model_commands import MOST_AT_ONCE
from modelhub.console.admin.read_only import NOTHING, Fact, ReadOnlyAdmin, model_link
from modelhub.console.site import counts
from modelhub.console.templatetags.console import milliseconds, moment, percent, seconds, size, state
from modelhub.console.templatetags.records import short
from modelhub.telemetry.alerts import ACKNOWLEDGE_PERMISSION, acknowledge
from modelhub.telemetry.models import Alert, Comparison, Sample, Trace
from modelhub.telemetry.queries import RESOLUTIONS_SECONDS, comparison_view

# Kind of alert -> what it is called, in which unit its value is measured, what to do about it.
_KINDS: dict[str, tuple[str, str, str]] = {
    "load_seconds": (
        "Slow load",
        "seconds",
        "Look in which phase its load spends the time; ALERT_LOAD_TIME_SECONDS in the policy says what is slow.",
    ),
    "memory": (
        "Little memory",
        "percent",
        "Unload what is not needed or optimise memory; ALERT_MEMORY_USAGE_PERCENT in the policy says from when on.",
    ),
    "error_rate": (
        "Failing predictions",
        "percent",
        "Look at its traces and the end of its log; roll back if a new version brought it.",
    ),
    "unhealthy": ("Unhealthy model", "", "Its page tells why; load it again once the cause is gone."),
    "restarts": ("Restarts", "", "The end of its log, on its page, tells why its process died."),
    "gave_up": (
        "Given up",
        "",
        "Its process died too often in a row, so it stays unloaded: mend the cause, then load it again.",
    ),
    "thrashing": (
        "Thrashing",
        "times",
        "Models push one another out of memory: raise the budget, pin what matters, or keep fewer of them alive.",
    ),
    "no_memory": ("No room", "", "Unload what is not needed, unpin a model, or raise MAX_MEMORY_USAGE_MB."),
    "over_budget": ("Past the budget", "bytes", "Unload something that is pinned, or raise the budget."),
}
MOST_EARLIER = 20


def _with_names(rows: QuerySet, *versions: str, others: Iterable[str] = ()) -> QuerySet:
    """The rows with the names of their models, without the models' large columns."""
    own = [field.name for field in rows.model._meta.concrete_fields]
    names = [f"{version}__{column}" for version in versions for column in ("model_id", "version")]
    return rows.select_related(*versions, *(name.partition("__")[0] for name in others)).only(*own, *names, *others)


def kind_of(alert: Alert) -> str:
    return _KINDS.get(alert.kind, (alert.kind.replace("_", " ").capitalize(), "", ""))[0]


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


class AlertKindFilter(OfferedFilter):
    """Its choices come from code, so they cost no query."""

    title = "kind"
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(kind, title) for kind, (title, _, _) in _KINDS.items()]


@admin.register(Alert)
class AlertAdmin(ReadOnlyAdmin):
    list_display = ("shown_message", "shown_state", "shown_kind", "of_model", "opened", "seen", "resolved")
    list_filter = (AlertStateFilter, AlertKindFilter, "opened_at")
    search_fields = ("version__model_id", "message", "acknowledged_by_name")
    search_help_text = "Model, message, or who acknowledged it"
    actions = ("acknowledge_selected",)
    change_form_template = "console/alert/page.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Alert]:
        return _with_names(super().get_queryset(request), "version")

    def has_acknowledge_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(ACKNOWLEDGE_PERMISSION)

    def heading(self, record: Alert) -> str:
        return f"{kind_of(record)}: {record.version.model_id}" if record.version else kind_of(record)

    def facts(self, record: Alert) -> list[Fact]:
        unit = _KINDS.get(record.kind, ("", "", ""))[1]
        return [
            ("Model", model_link(record.version, "the host")),
            ("Measured", _measured(record.value, unit)),
            ("Alert from", _measured(record.threshold, unit)),
            ("Opened", moment(record.opened_at)),
            ("Seen last", moment(record.last_seen_at)),
            ("Acknowledged", self._acknowledged(record)),
            ("Resolved", moment(record.resolved_at)),
        ]

    def shown(self, request: HttpRequest, record: Alert) -> dict[str, Any]:
        earlier = Alert.objects.filter(key=record.key).exclude(pk=record.pk)[:MOST_EARLIER]
        may = self.has_acknowledge_permission(request) and record.state == "open"
        return {
            "alert": record,
            "advice": _KINDS.get(record.kind, ("", "", ""))[2],
            "earlier": earlier,
            "acknowledge_url": reverse("console:alert-acknowledge", args=[record.pk]) if may else None,
            "happened": _happened(record),
        }

    def _acknowledged(self, alert: Alert) -> SafeString:
        if alert.acknowledged_at is None:
            return NOTHING
        return format_html("{} by {}", moment(alert.acknowledged_at), alert.acknowledged_by_name or "somebody")

    @admin.action(description="Acknowledge selected alerts", permissions=["acknowledge"])
    def acknowledge_selected(self, request: HttpRequest, queryset: QuerySet[Alert]) -> None:
        """The open ones among the chosen; what is acknowledged or resolved is left as it is."""
        chosen = queryset.count()
        done: list[Alert] = []
        for alert in queryset.filter(resolved_at=None, acknowledged_at=None)[:MOST_AT_ONCE]:
            try:
                acknowledge(alert, user=request.user)
            except LoaderdError as error:  # it was resolved at this moment
                self.message_user(request, error.message, messages.ERROR)
                break
            self.log_change(request, alert, "Acknowledged.")
            done.append(alert)
        counts.forget()
        if done:
            what = done[0].message if len(done) == 1 else f"{len(done)} alerts"
            self.message_user(request, f"Acknowledged: {what}", messages.SUCCESS)
        if left := chosen - len(done):
            told = (
                f"{left} of the chosen were resolved or acknowledged already, or more than {MOST_AT_ONCE} are chosen."
            )
            self.message_user(request, told, messages.WARNING)

    @display(description="Alert", ordering="message")
    def shown_message(self, alert: Alert) -> SafeString:
        return short(alert.message, 160)

    @display(description="State")
    def shown_state(self, alert: Alert) -> SafeString:
        who = f"by {alert.acknowledged_by_name}" if alert.state == "acknowledged" else ""
        return state(alert.state, who)

    @display(description="Kind", ordering="kind")
    def shown_kind(self, alert: Alert) -> str:
        return kind_of(alert)

    @display(description="Model", ordering="version__model_id")
    def of_model(self, alert: Alert) -> SafeString:
        return model_link(alert.version, "the host")

    @display(description="Opened", ordering="opened_at")
    def opened(self, alert: Alert) -> SafeString:
        return moment(alert.opened_at)

    @display(description="Seen last", ordering="last_seen_at")
    def seen(self, alert: Alert) -> SafeString:
        return moment(alert.last_seen_at)

    @display(description="Resolved", ordering="resolved_at")
    def resolved(self, alert: Alert) -> SafeString:
        return moment(alert.resolved_at)


def _measured(value: float | None, unit: str) -> str | SafeString:
    if value is None:
        return NOTHING
    match unit:
        case "seconds":
            return seconds(value)
        case "percent":
            return f"{value:.3g} %"
        case "bytes":
            return size(value)
        case "times":
            return f"{value:g} times"
    return f"{value:g}"


def _happened(alert: Alert) -> list[tuple[Any, str, str]]:
    """(when, what, tone) of this alert, newest first."""
    steps = [(alert.opened_at, "opened by loaderd", "bad")]
    if alert.acknowledged_at:
        steps.append((alert.acknowledged_at, f"acknowledged by {alert.acknowledged_by_name or 'somebody'}", "warn"))
    if alert.resolved_at:
        steps.append((alert.resolved_at, "resolved by loaderd: its cause is gone", "good"))
    else:
        steps.append((alert.last_seen_at, "still so when loaderd looked last", "busy"))
    return sorted(steps, key=lambda step: step[0], reverse=True)


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
    list_display = (
        "when",
        "of_model",
        "answer",
        "route",
        "shown_user",
        "items",
        "batch_items",
        "total",
        "queue",
        "compute",
    )
    list_filter = (TraceStatusFilter, choice_filter("route", ROUTES), "at")
    search_fields = ("version__model_id", "user")
    search_help_text = "Model or user"
    fields = ("of_model", "when", "answer", "route", "shown_user", "items", "batch_items", "total", "queue", "compute")
    paginator = InfinitePaginator  # counting a week of them takes longer than the page

    def get_queryset(self, request: HttpRequest) -> QuerySet[Trace]:
        return _with_names(super().get_queryset(request), "version")

    def heading(self, record: Trace) -> str:
        return f"A prediction of {record.version.model_id}"

    @display(description="When", ordering="at")
    def when(self, trace: Trace) -> SafeString:
        return moment(trace.at)

    @display(description="Model", ordering="version__model_id")
    def of_model(self, trace: Trace) -> SafeString:
        return model_link(trace.version)

    @display(description="Answer", ordering="status")
    def answer(self, trace: Trace) -> SafeString:
        word = {2: "answered", 4: "refused", 5: "failed"}.get(trace.status // 100, "answered")
        tone = {2: "good", 4: "warn", 5: "bad"}.get(trace.status // 100, "off")
        return format_html('<span class="mh-state mh-state--{}">{} {}</span>', tone, trace.status, word)

    @display(description="User", ordering="user")
    def shown_user(self, trace: Trace) -> str | SafeString:
        return trace.user or NOTHING

    @display(description="Total")
    def total(self, trace: Trace) -> str:
        return seconds(trace.total_seconds)

    @display(description="In the queue")
    def queue(self, trace: Trace) -> str:
        return seconds(trace.queue_seconds)

    @display(description="Computing")
    def compute(self, trace: Trace) -> str:
        return seconds(trace.compute_seconds)


class ResolutionFilter(OfferedFilter):
    title = "length"
    parameter_name = "seconds"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(length), f"{length} seconds") for length in RESOLUTIONS_SECONDS]


@admin.register(Sample)
class SampleAdmin(ReadOnlyAdmin):
    list_display = ("when", "shown_of", "length", "requests", "errors", "queued", "memory", "gpu_memory", "available")
    list_filter = (ResolutionFilter, "at")
    search_fields = ("version__model_id",)
    search_help_text = "Model"
    ordering = ("-pk",)  # written last first: sorting a week of them by their time takes longer than the page
    paginator = InfinitePaginator
    fields = ("shown_of", "when", "length", "requests", "items", "errors", "mean_latency", "compute_time", "queued",
              "in_flight", "memory", "gpu_memory", "reserved", "budget", "available")  # fmt: skip

    def get_queryset(self, request: HttpRequest) -> QuerySet[Sample]:
        return _with_names(super().get_queryset(request), "version").defer("histogram")

    def heading(self, record: Sample) -> str:
        return f"{record.seconds} seconds of {record.version.model_id if record.version else 'the host'}"

    @display(description="Until", ordering="at")
    def when(self, sample: Sample) -> SafeString:
        return moment(sample.at)

    @display(description="Of")
    def shown_of(self, sample: Sample) -> SafeString:
        return model_link(sample.version, "host")

    @display(description="Length", ordering="seconds")
    def length(self, sample: Sample) -> str:
        return f"{sample.seconds} s"

    @display(description="Mean latency")
    def mean_latency(self, sample: Sample) -> str:
        return seconds(sample.latency_seconds / sample.requests if sample.requests else None)

    @display(description="Computed for")
    def compute_time(self, sample: Sample) -> str:
        return seconds(sample.compute_seconds)

    @display(description="Memory", ordering="private_bytes")
    def memory(self, sample: Sample) -> str:
        return size(sample.private_bytes)

    @display(description="GPU memory")
    def gpu_memory(self, sample: Sample) -> str:
        return size(sample.gpu_bytes)

    @display(description="Reserved")
    def reserved(self, sample: Sample) -> str:
        return size(sample.reserved_bytes)

    @display(description="Budget")
    def budget(self, sample: Sample) -> str:
        return size(sample.budget_bytes)

    @display(description="Machine has left")
    def available(self, sample: Sample) -> str:
        return size(sample.available_bytes)


@admin.register(Comparison)
class ComparisonAdmin(ReadOnlyAdmin):
    list_display = ("shown_lineage", "shown_live", "shown_candidate", "begun", "last", "disagreement", "error_rates",
                    "latencies")  # fmt: skip
    search_fields = ("lineage__name",)
    search_help_text = "Lineage"
    fields = ("lineage_page", "shown_live", "shown_candidate", "begun", "last", "disagreement", "error_rates",
              "latencies", "requests", "not_sent")  # fmt: skip

    def get_queryset(self, request: HttpRequest) -> QuerySet[Comparison]:
        rows = super().get_queryset(request)
        return _with_names(rows, "live", "candidate", others=("lineage__name", "lineage__traffic_changed_at"))

    def heading(self, record: Comparison) -> str:
        return f"{record.lineage.name}: {record.live.model_id} beside {record.candidate.model_id}"

    @display(description="Lineage", ordering="lineage__name")
    def shown_lineage(self, row: Comparison) -> str:
        return row.lineage.name

    @display(description="Lineage")
    def lineage_page(self, row: Comparison) -> SafeString:
        url = reverse("admin:registry_model_change", args=[row.lineage_id])
        return format_html('<a class="mh-link" href="{}">{}</a>', url, row.lineage.name)

    @display(description="Live")
    def shown_live(self, row: Comparison) -> SafeString:
        return model_link(row.live)

    @display(description="Candidate")
    def shown_candidate(self, row: Comparison) -> SafeString:
        return model_link(row.candidate)

    @display(description="Since", ordering="since")
    def begun(self, row: Comparison) -> SafeString:
        return moment(row.since)

    @display(description="Last", ordering="last_at")
    def last(self, row: Comparison) -> SafeString:
        return moment(row.last_at)

    @display(description="Answered differently")
    def disagreement(self, row: Comparison) -> str:
        share = comparison_view(row, row.lineage)["disagreement_rate"]
        return "nothing compared" if share is None else f"{percent(share)} of {row.compared}"

    @display(description="Errors, live and candidate")
    def error_rates(self, row: Comparison) -> str:
        view = comparison_view(row, row.lineage)
        return " and ".join(percent(view[side]["error_rate"]) for side in ("live", "candidate"))

    @display(description="95 % within, live and candidate")
    def latencies(self, row: Comparison) -> str:
        view = comparison_view(row, row.lineage)
        return " and ".join(milliseconds(view[side]["latency_ms"]["p95"]) for side in ("live", "candidate"))

    @display(description="Requests, live and candidate")
    def requests(self, row: Comparison) -> str:
        view = comparison_view(row, row.lineage)
        return " and ".join(str(view[side]["requests"]) for side in ("live", "candidate"))

    @display(description="Copies that were not sent")
    def not_sent(self, row: Comparison) -> str:
        return f"{row.dropped}; too many were under way" if row.dropped else "none"
