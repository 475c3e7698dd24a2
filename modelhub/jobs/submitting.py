"""Asking for a job, taking it back, and throwing it away."""

from __future__ import annotations

import uuid
from pathlib import PurePath
from typing import Any

from django.db import transaction
from django.utils import timezone

from loaderd.errors import LoaderdError, Overloaded, StateForbids
from modelhub.conf import config
from modelhub.jobs.folders import JobFolder
from modelhub.jobs.models import UNDER_WAY, Job, JobState
from modelhub.jobs.options import Options
from modelhub.jobs.pinning import pinned
from modelhub.jobs.scoring import Plan
from modelhub.lifecycle.notifications import notify

CHANNEL = "modelhub_jobs"  # the runner listens: a job was asked for


def require_place(user: Any) -> None:
    """Raises Overloaded for who has JOB_MAX_OPEN jobs under way."""
    most = config().JOB_MAX_OPEN
    if Job.objects.filter(owner=user.pk, state__in=UNDER_WAY).count() >= most:
        raise Overloaded(
            f"{most} jobs of {user} are queued or running already (JOB_MAX_OPEN); wait for one to end, or cancel one."
        )


def require_fit(folder: JobFolder, model: str, version: str, input_format: str, options: Options) -> None:
    """What can be said at once of the folder's input. Raises UnknownModel or FileRefused."""
    found = pinned(model, version)
    with folder.input.open("rb") as source:
        if found.signature is not None:
            Plan(source, input_format, found.signature, options).begun(found.model_id)


def submit(
    folder: JobFolder,
    *,
    model: str,
    version: str,
    user: Any,
    input_name: str,
    input_format: str,
    output_format: str,
    options: Options,
) -> Job:
    """The queued job over the folder's input. What can be said at once of the file is said at once.

    Raises UnknownModel, FileRefused or Overloaded; the folder is the caller's to remove then.
    """
    require_fit(folder, model, version, input_format, options)
    require_place(user)
    with transaction.atomic():
        job = Job.objects.create(
            id=folder.id,
            model_name=model,
            version_asked=version,
            owner=user,
            owner_name=user.get_username(),
            input_name=shown_name(input_name),
            input_format=input_format,
            input_bytes=folder.input.stat().st_size,
            input_digest=folder.input_digest(),
            output_format=output_format,
            options=options.to_json(),
        )
        notify(CHANNEL)
        job.refresh_from_db()
    return job


def shown_name(name: str) -> str:
    """The last part of a file's name as somebody sent it, for people to read; it names no file here."""
    last = PurePath(name.replace("\\", "/")).name
    return "".join(letter for letter in last if letter.isprintable())[:255]


def cancel(job: Job) -> Job:
    """The job as it stands then; what it has written is kept for `retrying`. The runner sees it at its next look.

    Raises StateForbids when it is over.
    """
    now = timezone.now()
    changed = Job.objects.filter(pk=job.pk, state__in=UNDER_WAY).update(
        state=JobState.CANCELLED, finished_at=now, problem="", not_before=None
    )
    job.refresh_from_db()
    if not changed:
        raise StateForbids(f"The job has {job.state} already; there is nothing to cancel.", state=job.state)
    return job


def remove(job: Job) -> None:
    """The job and its files, whatever it is doing: a runner that is at it finds it gone."""
    pk: uuid.UUID = job.pk
    job.delete()
    JobFolder(pk).remove()


def failed(job: Job) -> LoaderdError:
    """Why there is no result."""
    told = (job.error or {}).get("message") or job.problem
    return StateForbids(
        f"The job has {'not ended' if not job.is_ended else job.state}. {told}".strip(), state=job.state
    )
