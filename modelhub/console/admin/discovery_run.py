"""Discoveries in the admin: what each one found, refused and why, and what to do about it."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.safestring import SafeString
from unfold.decorators import display

from modelhub.console.admin.read_only import ReadOnlyAdmin
from modelhub.console.registering.access import may_register
from modelhub.console.registering.refusals import refusal_of
from modelhub.console.templatetags.console import UNKNOWN, moment, seconds, state
from modelhub.registry.models import DiscoveryRun, ModelVersion

# Key of the report -> heading, what it means.
_GROUPS = {
    "stale_in_memory": (
        "Changed while loaded",
        "Loaded from bytes that are not those on disk any more: unload and load them, to use what lies there.",
    ),
    "new": ("New", "Registered for the first time."),
    "changed": ("Changed", "Other bytes than before; an approval of the old ones does not hold for them."),
    "gone": ("Gone", "Their directories were not found. They stay registered until somebody deletes them."),
    "returned": ("Returned", "Gone before, and found again."),
}
_COUNTED = {
    **{name: title for name, (title, _) in _GROUPS.items()},
    "unchanged": "Unchanged",
    "refused": "Refused",
}
SHOWN = 500


@admin.register(DiscoveryRun)
class DiscoveryRunAdmin(ReadOnlyAdmin):
    list_display = ("summary", "shown_outcome", "actor", "when", "duration")
    list_before_template = "console/discovery/bar.html"
    change_form_template = "console/discovery/page.html"

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).order_by("-id")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        return super().changelist_view(request, {**(extra_context or {}), **_rights(request)})

    def heading(self, record: DiscoveryRun) -> str:
        return f"Discovery: {record.summary}" if not record.error else "Discovery: failed"

    def shown(self, request: HttpRequest, record: DiscoveryRun) -> dict[str, Any]:
        """Two queries however much was found: the run, and the models that it names."""
        report = record.report
        named = {name for key in _GROUPS for name in report.get(key, [])[:SHOWN]}
        pks = dict(ModelVersion.objects.filter(model_id__in=named).values_list("model_id", "pk"))
        counts = report.get("counts", {})
        return {
            "run": record,
            "counts": [(key, title, counts[key]) for key, title in _COUNTED.items() if counts.get(key)],
            "refusals": [
                refusal_of(entry["path"], entry["reason"], request.user) for entry in report.get("refused", [])[:SHOWN]
            ],
            "groups": [
                (key, title, meaning, [(name, pks.get(name)) for name in report[key][:SHOWN]], len(report[key]))
                for key, (title, meaning) in _GROUPS.items()
                if report.get(key)
            ],
            "most": SHOWN,
            "notes": report.get("notes", []),
            "duration": self.duration(record),
            **_rights(request),
        }

    @display(description="Found")
    def summary(self, run: DiscoveryRun) -> str:
        return run.summary

    @display(description="Outcome")
    def shown_outcome(self, run: DiscoveryRun) -> SafeString:
        return state(run.outcome)

    @display(description="When", ordering="started_at")
    def when(self, run: DiscoveryRun) -> SafeString:
        return moment(run.started_at)

    @display(description="Took")
    def duration(self, run: DiscoveryRun) -> str:
        return UNKNOWN if run.finished_at is None else seconds((run.finished_at - run.started_at).total_seconds())


def _rights(request: HttpRequest) -> dict[str, bool]:
    return {
        "may_discover": request.user.has_perm("registry.discover_modelversion"),
        "may_register": may_register(request.user),
    }
