"""The task queue in the admin: when schedules run can be changed, what they run cannot; tasks are to be read."""

from __future__ import annotations

import ast
import uuid
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST
from django_q.models import Failure, OrmQ, Schedule, Success, Task
from django_q.tasks import async_task
from unfold.admin import ModelAdmin
from unfold.decorators import display

from modelhub.console.admin.activity import operation_link
from modelhub.console.admin.read_only import NOTHING, Fact, ReadOnlyAdmin
from modelhub.console.templatetags.console import moment, seconds, state
from modelhub.console.templatetags.records import in_json, short
from modelhub.lifecycle.models import Operation
from modelhub.registry.models import large_columns

for registered in (Schedule, Success, Failure, OrmQ):
    if admin.site.is_registered(registered):
        admin.site.unregister(registered)

# What the queue carries out -> what people call it.
_TITLES = {
    "modelhub.lifecycle.tasks.dispatch": "Hand a command to loaderd",
    "modelhub.telemetry.maintenance.maintain": "Roll up and purge measurements",
}


def title_of(function: str) -> str:
    return _TITLES.get(function, function or "a task that cannot be read")


@admin.register(Schedule)
class ScheduleAdmin(ModelAdmin):
    """A function to be called is named by its dotted path: whoever may write that may run anything."""

    list_display = ("shown_name", "how_often", "next", "last", "outcome", "run_button")
    list_display_links = ("shown_name",)
    fields = ("name", "func", "schedule_type", "minutes", "next_run", "repeats", "last", "outcome")
    readonly_fields = ("name", "func", "last", "outcome")
    search_fields = ("name", "func")
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER

    def get_queryset(self, request: HttpRequest) -> QuerySet[Schedule]:
        schedules: QuerySet[Schedule] = super().get_queryset(request)
        last = Task.objects.filter(id=OuterRef("task"))
        return schedules.annotate(last_at=Subquery(last.values("started")), last_ok=Subquery(last.values("success")))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Schedule | None = None) -> bool:
        return False  # it would be made again by the next migrate; repeats = 0 stops it

    def get_list_display(self, request: HttpRequest) -> list[str] | tuple[str, ...]:
        shown = super().get_list_display(request)
        return shown if self.has_change_permission(request) else [name for name in shown if name != "run_button"]

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(require_POST(self.run_now))
        return [path("<int:pk>/run/", view, name="django_q_schedule_run"), *super().get_urls()]

    def run_now(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Puts what the schedule runs into the queue, once more; when it runs next by itself stays."""
        schedule: Any = get_object_or_404(Schedule, pk=pk)
        if not self.has_change_permission(request, schedule):
            raise PermissionDenied
        arguments, options = _arguments_of(schedule)
        task_id = async_task(schedule.func, *arguments, **options, group=schedule.name or "")
        Schedule.objects.filter(pk=pk).update(task=task_id)
        self.log_change(request, schedule, "Run now.")
        messages.success(
            request, f"“{schedule.name or schedule.func}” is in the queue; its last run tells how it ended."
        )
        return redirect("admin:django_q_schedule_changelist")

    @display(description="Schedule", ordering="name")
    def shown_name(self, schedule: Schedule) -> str:
        return schedule.name or title_of(schedule.func)

    @display(description="How often", ordering="schedule_type")
    def how_often(self, schedule: Schedule) -> str:
        often = schedule.get_schedule_type_display()
        if schedule.schedule_type == Schedule.MINUTES:
            often = f"every {schedule.minutes} minutes" if schedule.minutes != 1 else "every minute"
        if schedule.repeats == 0:
            return f"{often}, and stopped"
        return often if schedule.repeats < 0 else f"{often}, {schedule.repeats} times more"

    @display(description="Next run", ordering="next_run")
    def next(self, schedule: Schedule) -> SafeString:
        if schedule.repeats == 0:
            return format_html('<span class="mh-subtle">{}</span>', "none")
        return moment(schedule.next_run, "until")

    @display(description="Last run", ordering="last_at")
    def last(self, schedule: Any) -> SafeString:
        if schedule.last_at is None:
            waits = "in the queue, or carried out long ago" if schedule.task else "not yet"
            return format_html('<span class="mh-subtle">{}</span>', waits)
        kind = "success" if schedule.last_ok else "failure"
        url = reverse(f"admin:django_q_{kind}_change", args=[schedule.task])
        return format_html('<a class="mh-link" href="{}">{}</a>', url, moment(schedule.last_at))

    @display(description="Ended", ordering="last_ok")
    def outcome(self, schedule: Any) -> SafeString:
        return NOTHING if schedule.last_ok is None else state("succeeded" if schedule.last_ok else "failed")

    @display(description="Now")
    def run_button(self, schedule: Schedule) -> SafeString:
        # The list's own form carries the token.
        url = reverse("admin:django_q_schedule_run", args=[schedule.pk])
        label = format_html('Run now<span class="mh-hidden">: {}</span>', self.shown_name(schedule))
        return format_html(
            '<button type="submit" formmethod="post" formaction="{}" class="mh-button mh-button--small">{}</button>',
            url,
            label,
        )


def _arguments_of(schedule: Schedule) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """As django-q's scheduler reads them: literals."""
    arguments = ast.literal_eval(schedule.args) if schedule.args else ()
    options = ast.literal_eval(schedule.kwargs) if schedule.kwargs and schedule.kwargs.lstrip()[:1] == "{" else {}
    return arguments if isinstance(arguments, tuple) else (arguments,), options


class TaskAdmin(ReadOnlyAdmin):
    """A task that was carried out. What it hands to loaderd is an operation, which tells the rest."""

    list_display: tuple[str, ...] = ("shown_title", "shown_state", "when", "took", "attempt_count")
    search_fields = ("name", "func", "group")
    search_help_text = "Name, function or group"

    def heading(self, record: Task) -> str:
        return title_of(record.func)

    def facts(self, record: Task) -> list[Fact]:
        return [
            ("State", self.shown_state(record)),
            ("For", operation_link(_operation_of(record))),
            ("Began", moment(record.started)),
            ("Ended", moment(record.stopped)),
            ("Took", self.took(record)),
            ("Attempts", record.attempt_count),
            ("Function", format_html('<span class="mh-mono">{}</span>', record.func)),
            ("Name", record.name or NOTHING),
            ("Group", record.group or NOTHING),
            ("Result", _result(record)),
        ]

    @display(description="Task", ordering="func")
    def shown_title(self, task: Task) -> str:
        return title_of(task.func)

    @display(description="State")
    def shown_state(self, task: Task) -> SafeString:
        return state("succeeded" if task.success else "failed")

    @display(description="Began", ordering="started")
    def when(self, task: Task) -> SafeString:
        return moment(task.started)

    @display(description="Took")
    def took(self, task: Any) -> str:
        return seconds(task.time_taken())


def _operation_of(task: Task) -> Operation | None:
    """The operation that it handed to loaderd, if it did."""
    try:
        wanted = uuid.UUID(str(task.args[0])) if task.args else None
    except (ValueError, TypeError, IndexError):
        return None
    operations = Operation.objects.select_related("version").defer(*large_columns("version"))
    return operations.filter(pk=wanted).first() if wanted else None


def _result(task: Task) -> Any:
    if task.result in (None, ""):
        return NOTHING
    if isinstance(task.result, dict) and "sentence" in task.result:
        return task.result["sentence"]
    if isinstance(task.result, dict | list):
        return in_json(task.result)
    return format_html('<pre class="mh-log mh-log--wrap" tabindex="0">{}</pre>', task.result)


@admin.register(Success)
class SuccessAdmin(TaskAdmin):
    pass


@admin.register(Failure)
class FailureAdmin(TaskAdmin):
    list_display = ("shown_title", "shown_state", "why", "when", "took", "attempt_count")

    @display(description="Why")
    def why(self, task: Failure) -> SafeString:
        return short(reason_of(task))

    def facts(self, record: Task) -> list[Fact]:
        found = super().facts(record)
        return [found[0], ("Why", reason_of(record)), *found[1:-1], ("In full", found[-1][1])]


def reason_of(task: Task) -> str:
    """The last line of a traceback, or what stands for one."""
    lines = str(task.result or "").strip().splitlines()
    return lines[-1] if lines else "It left no reason: its worker was killed, or it took longer than it may."


@admin.register(OrmQ)
class QueuedAdmin(ReadOnlyAdmin):
    """Tasks that wait for a worker, or that one has: what is named comes from the signed payload."""

    list_display = ("shown_title", "shown_state", "until")
    fields = ("shown_title", "shown_state", "until", "task_name", "function", "key")

    def heading(self, record: OrmQ) -> str:
        return self.shown_title(record)

    @display(description="Task")
    def shown_title(self, queued: OrmQ) -> str:
        return title_of(self.function(queued))

    @display(description="State")
    def shown_state(self, queued: OrmQ) -> SafeString:
        return state("running" if self._is_taken(queued) else "queued")

    @display(description="Given to another worker", ordering="lock")
    def until(self, queued: OrmQ) -> SafeString:
        return moment(queued.lock, "until") if self._is_taken(queued) else NOTHING

    @display(description="Name")
    def task_name(self, queued: OrmQ) -> str:
        return str(queued.name() or "")

    @display(description="Function")
    def function(self, queued: OrmQ) -> str:
        return str(queued.func() or "")

    def _is_taken(self, queued: OrmQ) -> bool:
        """A worker that has it locks it for a while; one that waits has a lock that passed."""
        return queued.lock is not None and queued.lock > timezone.now()
