"""A job that failed or was cancelled goes on behind what it has written; it begins anew only when somebody wants it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from django.db import transaction

from loaderd.errors import LoaderdError, StateForbids
from modelhub.jobs.checkpoint import Checkpoint
from modelhub.jobs.folders import JobFolder
from modelhub.jobs.formats import FileRefused
from modelhub.jobs.models import RETRIABLE, Job, JobState
from modelhub.jobs.options import Options
from modelhub.jobs.results import PartFile
from modelhub.jobs.submitting import CHANNEL, require_fit, require_place
from modelhub.lifecycle.notifications import notify
from modelhub.registry.models import ModelVersion

LEAVING_SECONDS = 3.0  # until a runner whose job was cancelled has seen it: a batch, and half a second
LOOK_SECONDS = 0.05

# What the runner chooses and counts as if it had never been at the job.
_ANEW: dict[str, Any] = {
    "checkpoint": None,
    "version": None,
    "model_id": "",
    "rows_total": None,
    "rows_done": 0,
    "rows_failed": 0,
    "seconds": 0.0,
    "started_at": None,
}


class CannotGoOn(LoaderdError):
    """What it has written cannot be gone on with; beginning anew is another matter."""

    code = "job_cannot_go_on"
    http_status = 409


def retry(job: Job, user: Any, *, from_start: bool = False) -> Job:
    """The job, queued again: behind what it has written, or anew. It stays its owner's.

    Raises StateForbids, Overloaded; CannotGoOn unless from_start; UnknownModel or FileRefused when from_start.
    """
    folder = JobFolder(job.pk)
    with _left_alone(job, folder):
        if from_start:
            require_fit(folder, job.model_name, job.version_asked, job.input_format, Options.from_json(job.options))
            changes = {
                **_ANEW,
                "input_bytes": folder.input.stat().st_size,
                "input_digest": folder.input_digest(),
            }
        else:
            why = obstacle(job)
            if why:
                raise CannotGoOn(f"The job cannot go on where it stopped: {why} Ask with from_start to begin anew.")
            changes = {} if job.rows_done else _ANEW
        require_place(job.owner or user)
        with transaction.atomic():
            changed = Job.objects.filter(pk=job.pk, state__in=RETRIABLE).update(
                state=JobState.QUEUED, error=None, problem="", finished_at=None, not_before=None, waiting_since=None,
                runner=None, result_bytes=None, **changes,
            )  # fmt: skip
        if changed and changes:
            PartFile(folder.result).remove()
            folder.result.unlink(missing_ok=True)
    job.refresh_from_db()
    if not changed:
        raise _not_over(job)
    notify(CHANNEL)  # the folder is free by now
    return job


def obstacle(job: Job, *, reads_file: bool = True) -> str:
    """Why it cannot go on behind what it has written, in a sentence; "" when it can.

    reads_file: False for a look that does not read the whole input.
    """
    folder = JobFolder(job.pk)
    try:
        is_same = folder.input.stat().st_size == job.input_bytes and not (
            reads_file and job.input_digest and folder.input_digest() != job.input_digest
        )
    except OSError as error:
        return f"its file cannot be read ({error.strerror})."
    if not is_same:
        return "its file is not the one that was sent."
    if (job.error or {}).get("code") == FileRefused.code:
        return "its file was refused, and it is the same file; correct it and send it again."
    if not job.checkpoint or not job.rows_done:
        return ""
    kept = Checkpoint.from_json(job.checkpoint)
    version = ModelVersion.objects.filter(model_id=kept.model_id).only("digest").first()
    if version is None:
        return f"{kept.model_id}, which answered its rows, is not registered any more."
    if version.digest != kept.of.get("model_digest", version.digest):
        return f"{kept.model_id} has other files than when it answered the rows that are written."
    return "" if _is_there(folder, kept) else "what it had written is not there any more."


def _is_there(folder: JobFolder, kept: Checkpoint) -> bool:
    with contextlib.suppress(OSError):
        return PartFile(folder.result).part.stat().st_size >= kept.written
    return kept.is_complete and folder.result.exists()


@contextlib.contextmanager
def _left_alone(job: Job, folder: JobFolder) -> Iterator[None]:
    """While no runner works in the folder; one that was told to leave is waited for. Raises StateForbids."""
    if job.state not in RETRIABLE:
        raise _not_over(job)
    if not folder.input.exists():
        raise StateForbids("The job's file is not there any more; send it again.", state=job.state)
    deadline = time.monotonic() + LEAVING_SECONDS
    while True:
        with folder.held() as is_mine:
            if is_mine:
                yield
                return
        if time.monotonic() >= deadline:
            raise StateForbids("The runner is just leaving the job; ask again in a moment.", state=job.state)
        time.sleep(LOOK_SECONDS)


def _not_over(job: Job) -> StateForbids:
    told = "has succeeded; its result is there" if job.state == JobState.SUCCEEDED else f"is {job.state}"
    return StateForbids(f"The job {told}. Only a failed or cancelled one is retried.", state=job.state)
