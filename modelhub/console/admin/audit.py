"""Who changed what through the admin, the API and the commands: Django's own log, to be read by those who may."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.models import ADDITION, CHANGE, DELETION, LogEntry
from django.db.models import QuerySet
from django.db.models.functions import Left, Length
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display
from unfold.views import ChangeList

from modelhub.console.admin.read_only import NOTHING, ReadOnlyAdmin
from modelhub.console.templatetags.console import moment
from modelhub.console.templatetags.records import short

_WORDS = {ADDITION: "added", CHANGE: "changed", DELETION: "deleted"}
_TONES = {ADDITION: "good", CHANGE: "busy", DELETION: "bad"}
LISTED_CHARACTERS = 1000


class AuditList(ChangeList):
    """An entry may keep whole files that were changed; the list reads the beginning of what was said."""

    def get_queryset(self, *args: Any, **options: Any) -> QuerySet[LogEntry]:
        entries: QuerySet[LogEntry] = super().get_queryset(*args, **options)
        return entries.defer("change_message").annotate(
            beginning=Left("change_message", LISTED_CHARACTERS), length=Length("change_message")
        )

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        for entry in self.result_list:
            if entry.length <= LISTED_CHARACTERS:  # whole, and perhaps Django's JSON
                entry.change_message = entry.beginning


@admin.register(LogEntry)
class AuditAdmin(ReadOnlyAdmin):
    list_display = ("shown_object", "shown_action", "shown_message", "shown_user", "kind", "when")
    list_filter = ("action_time", "action_flag")
    search_fields = ("object_repr", "change_message", "user__username")
    search_help_text = "Object, what was said, or user"
    fields = ("link", "kind", "shown_action", "shown_user", "when", "in_full")

    def get_queryset(self, request: HttpRequest) -> QuerySet[LogEntry]:
        entries: QuerySet[LogEntry] = super().get_queryset(request)
        return entries.select_related("user", "content_type")

    def get_changelist(self, request: HttpRequest, **options: Any) -> type[ChangeList]:
        return AuditList

    def heading(self, record: LogEntry) -> str:
        return f"{record.object_repr}: {_WORDS.get(record.action_flag, 'changed')} by {record.user}"

    @display(description="What", ordering="action_flag")
    def shown_action(self, entry: LogEntry) -> SafeString:
        word, tone = _WORDS.get(entry.action_flag, "changed"), _TONES.get(entry.action_flag, "busy")
        return format_html('<span class="mh-tag mh-tag--{}">{}</span>', tone, word)

    @display(description="Object", ordering="object_repr")
    def shown_object(self, entry: LogEntry) -> str:
        return entry.object_repr

    @display(description="Object")
    def link(self, entry: LogEntry) -> str | SafeString:
        url = None if entry.action_flag == DELETION or entry.object_id is None else entry.get_admin_url()
        return format_html('<a class="mh-link" href="{}">{}</a>', url, entry.object_repr) if url else entry.object_repr

    @display(description="Kind")
    def kind(self, entry: LogEntry) -> str | SafeString:
        model = entry.content_type.model_class() if entry.content_type else None
        return str(model._meta.verbose_name) if model is not None else NOTHING

    @display(description="By", ordering="user__username")
    def shown_user(self, entry: LogEntry) -> str:
        return str(entry.user)

    @display(description="When", ordering="action_time")
    def when(self, entry: LogEntry) -> SafeString:
        return moment(entry.action_time)

    @display(description="Said")
    def shown_message(self, entry: LogEntry) -> SafeString:
        is_whole = "change_message" not in entry.get_deferred_fields()
        told = entry.get_change_message() if is_whole else entry.beginning
        return short(told.split("\n", 1)[0], 160)

    @display(description="Said")
    def in_full(self, entry: LogEntry) -> SafeString:
        told = entry.get_change_message()
        if "\n" not in told:
            return format_html("{}", told) if told else NOTHING
        first, rest = told.split("\n", 1)
        return format_html('{}<pre class="mh-code mh-json" tabindex="0">{}</pre>', first, rest)
