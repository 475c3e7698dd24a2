"""Discoveries in the admin: what each one found, refused and why."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import display

from modelhub.registry.models import DiscoveryRun

_LISTS = ["new", "changed", "gone", "returned", "stale_in_memory", "notes"]


@admin.register(DiscoveryRun)
class DiscoveryRunAdmin(ModelAdmin):
    list_display = ["started_at", "actor", "outcome", "summary", "duration"]
    list_per_page = 50
    show_full_result_count = False
    fields = ["started_at", "duration", "actor", "outcome", "summary", "refused", *_LISTS, "error"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: DiscoveryRun | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: DiscoveryRun | None = None) -> bool:
        return False

    @display(description="Outcome", label={"done": "success", "some refused": "warning", "failed": "danger"})
    def outcome(self, run: DiscoveryRun) -> str:
        return run.outcome

    @display(description="Found")
    def summary(self, run: DiscoveryRun) -> str:
        return run.summary

    @display(description="Took")
    def duration(self, run: DiscoveryRun) -> str | None:
        return None if run.finished_at is None else f"{(run.finished_at - run.started_at).total_seconds():.2f} s"

    @display(description="Refused")
    def refused(self, run: DiscoveryRun) -> SafeString | None:
        rows = [(entry["path"], entry["reason"]) for entry in run.report.get("refused", [])]
        return format_html_join("", "<div><strong>{}</strong>: {}</div>", rows) or None

    def _listed(self, run: DiscoveryRun, name: str) -> SafeString | None:
        found: list[Any] = run.report.get(name, [])
        return format_html_join("", "<div>{}</div>", ((entry,) for entry in found)) or None

    @display(description="New")
    def new(self, run: DiscoveryRun) -> SafeString | None:
        return self._listed(run, "new")

    @display(description="Changed")
    def changed(self, run: DiscoveryRun) -> SafeString | None:
        return self._listed(run, "changed")

    @display(description="Gone")
    def gone(self, run: DiscoveryRun) -> SafeString | None:
        return self._listed(run, "gone")

    @display(description="Returned")
    def returned(self, run: DiscoveryRun) -> SafeString | None:
        return self._listed(run, "returned")

    @display(description="Changed while loaded")
    def stale_in_memory(self, run: DiscoveryRun) -> SafeString | None:
        return self._listed(run, "stale_in_memory")

    @display(description="Notes")
    def notes(self, run: DiscoveryRun) -> SafeString | None:
        return self._listed(run, "notes")
