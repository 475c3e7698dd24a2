"""Jobs that ended JOB_RETENTION_DAYS ago go, with their files; so do folders that no job owns."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from django.utils import timezone

from modelhub.conf import config
from modelhub.jobs.folders import strays
from modelhub.jobs.models import UNDER_WAY, Job
from modelhub.jobs.submitting import remove

CHUNK_JOBS = 20  # whose files one step deletes
STRAY_SECONDS = 3600.0


def purge_jobs(oldest: datetime) -> Callable[[], int | None]:
    """A step of `modelhub.telemetry.maintenance`; jobs have an age of their own."""
    ended_before = timezone.now() - timedelta(days=config().JOB_RETENTION_DAYS)

    def step() -> int | None:
        old = list(
            Job.objects.exclude(state__in=UNDER_WAY)
            .filter(finished_at__lt=ended_before)
            .order_by("finished_at")[:CHUNK_JOBS]
        )
        for job in old:
            remove(job)
        if not old:
            found = strays(set(Job.objects.values_list("pk", flat=True)), STRAY_SECONDS)
            for folder in found:
                folder.remove()
        return len(old) or None

    return step


def register() -> None:
    """Makes it a part of the maintenance."""
    from modelhub.telemetry.maintenance import PURGES

    if purge_jobs not in PURGES:
        PURGES.append(purge_jobs)
