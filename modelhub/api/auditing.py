"""What the API changed of a model, in the history that the admin shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.admin.models import ADDITION, CHANGE, DELETION, LogEntry

from modelhub.jobs.models import Job
from modelhub.registry.models import ModelVersion


def record_change(version: ModelVersion, values: Mapping[str, Any], user: Any) -> None:
    """Leaves an entry that names each field that gets another value; none when nothing changes."""
    changed = [
        f"{name}: {getattr(version, name)} → {value}"
        for name, value in values.items()
        if getattr(version, name) != value
    ]
    if changed:
        LogEntry.objects.log_actions(
            user.pk, [version], CHANGE, change_message=f"By the API. {', '.join(changed)}.", single_object=True
        )


_OF_JOBS = {
    "asked": (ADDITION, "Asked for"),
    "cancelled": (CHANGE, "Cancelled"),
    "retried": (CHANGE, "Retried, behind what was written"),
    "begun anew": (CHANGE, "Begun anew"),
    "removed": (DELETION, "Removed, with its files"),
}


def record_of_job(job: Job, what: str, user: Any, source: str = "By the API") -> None:
    """Leaves an entry. what: asked, cancelled, retried, begun anew or removed; before it is."""
    flag, told = _OF_JOBS[what]
    LogEntry.objects.log_actions(user.pk, [job], flag, change_message=f"{source}. {told}.", single_object=True)
