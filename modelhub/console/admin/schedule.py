"""The queue's schedules in the admin: when they run can be changed, what they run cannot."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest
from django_q.admin import ScheduleAdmin as QueueScheduleAdmin
from django_q.models import Schedule
from unfold.admin import ModelAdmin

admin.site.unregister(Schedule)


@admin.register(Schedule)
class ScheduleAdmin(QueueScheduleAdmin, ModelAdmin):
    """A function to be called is named by its dotted path: whoever may write that may run anything."""

    fields = ("name", "func", "schedule_type", "minutes", "next_run", "repeats")
    readonly_fields = ("name", "func")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Schedule | None = None) -> bool:
        return False  # it would be made again by the next migrate; repeats = 0 stops it
