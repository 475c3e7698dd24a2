"""The task queue in the admin: when schedules run can be changed, what they run cannot; tasks are to be read."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django_q.admin import ScheduleAdmin as QueueScheduleAdmin
from django_q.models import Failure, OrmQ, Schedule, Success
from unfold.admin import ModelAdmin
from unfold.decorators import display

from modelhub.read_only_admin import ReadOnlyAdmin

for registered in (Schedule, Success, Failure, OrmQ):
    if admin.site.is_registered(registered):
        admin.site.unregister(registered)


@admin.register(Schedule)
class ScheduleAdmin(QueueScheduleAdmin, ModelAdmin):
    """A function to be called is named by its dotted path: whoever may write that may run anything."""

    fields = ("name", "func", "schedule_type", "minutes", "next_run", "repeats")
    readonly_fields = ("name", "func")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Schedule | None = None) -> bool:
        return False  # it would be made again by the next migrate; repeats = 0 stops it


class TaskAdmin(ReadOnlyAdmin):
    """A task that was carried out. What it hands to loaderd is an operation, which tells the rest."""

    list_display = ("started", "func", "group", "took", "attempt_count")
    list_display_links = ("started",)
    search_fields = ("name", "func", "group")
    search_help_text = "Name, function or group"
    fields = ("id", "name", "func", "group", "cluster", "started", "stopped", "took", "attempt_count", "result")

    @display(description="Took")
    def took(self, task: Any) -> str:
        return f"{task.time_taken():.2f} s"


@admin.register(Success)
class SuccessAdmin(TaskAdmin):
    pass


@admin.register(Failure)
class FailureAdmin(TaskAdmin):
    list_display = ("started", "func", "group", "took", "attempt_count", "why")

    @display(description="Why")
    def why(self, task: Failure) -> str:
        lines = str(task.result or "").strip().splitlines()
        return lines[-1][:200] if lines else ""


@admin.register(OrmQ)
class QueuedAdmin(ReadOnlyAdmin):
    """Tasks that wait for a worker, or that one has: what is named comes from the signed payload."""

    list_display = ("id", "key", "task_name", "function", "lock")
    fields = ("id", "key", "task_name", "function", "lock")

    @display(description="Task")
    def task_name(self, queued: OrmQ) -> str:
        return str(queued.name() or "")

    @display(description="Function")
    def function(self, queued: OrmQ) -> str:
        return str(queued.func() or "")
