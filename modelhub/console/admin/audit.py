"""Who changed what through the admin, the API and the commands: Django's own log, to be read by those who may."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.admin.models import ADDITION, CHANGE, DELETION, LogEntry
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display

from modelhub.read_only_admin import ReadOnlyAdmin

_WORDS = {ADDITION: "added", CHANGE: "changed", DELETION: "deleted"}


@admin.register(LogEntry)
class AuditAdmin(ReadOnlyAdmin):
    list_display = ("action_time", "user", "shown_action", "content_type", "shown_object", "shown_message")
    list_filter = ("action_time", "action_flag")
    search_fields = ("object_repr", "change_message", "user__username")
    search_help_text = "Object, what was said, or user"
    fields = ("action_time", "user", "shown_action", "content_type", "shown_object", "shown_message")
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[LogEntry]:
        entries: QuerySet[LogEntry] = super().get_queryset(request)
        return entries.select_related("user", "content_type")

    @display(
        description="What", ordering="action_flag", label={"added": "success", "changed": "info", "deleted": "danger"}
    )
    def shown_action(self, entry: LogEntry) -> str:
        return _WORDS.get(entry.action_flag, "changed")

    @display(description="Object", ordering="object_repr")
    def shown_object(self, entry: LogEntry) -> str | SafeString:
        url = None if entry.action_flag == DELETION else entry.get_admin_url()
        return format_html('<a class="mh-link" href="{}">{}</a>', url, entry.object_repr) if url else entry.object_repr

    @display(description="Said")
    def shown_message(self, entry: LogEntry) -> str:
        return entry.get_change_message()
