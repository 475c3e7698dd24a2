"""Runs queued jobs, one at a time, in a process of its own: a job that takes hours holds up no command.

Every half second the result is synced, and then the job's row says how far it is. Whoever dies in between loses what
was not said: the next runner cuts the result there and goes on, so each row is in it once.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any, BinaryIO

from django.db import DatabaseError, InterfaceError, OperationalError, connection
from django.db.models import F, Q
from django.utils import timezone

from loaderd.errors import LoaderdError, ModelTimeout
from modelhub.conf import config
from modelhub.inference import client
from modelhub.jobs import pinning
from modelhub.jobs.asking import PASSING, Asker, MustWait, Stopped
from modelhub.jobs.checkpoint import Checkpoint
from modelhub.jobs.folders import JobFolder
from modelhub.jobs.formats import PARQUET, open_reader
from modelhub.jobs.models import UNDER_WAY, Job, JobState
from modelhub.jobs.options import Options
from modelhub.jobs.pacing import Pace
from modelhub.jobs.results import PartFile
from modelhub.jobs.scoring import Plan, Scoring
from modelhub.jobs.submitting import CHANNEL
from modelhub.lifecycle.notifications import Listener
from modelhub.registry.models import ModelVersion

PATIENCE_SECONDS = 5.0  # with a model that does not answer, before the next job gets its turn
AGAIN_SECONDS = 10.0
LOOK_SECONDS = 5.0  # for jobs, beside the notifications
AWAY_SECONDS = 1.0
_FULL = (errno.ENOSPC, errno.EDQUOT)
COUNTED_ROWS = 20_000  # between two looks whether the job still stands

logger = logging.getLogger(__name__)


class Runner:
    """`run()` until `stop` is set."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._wake = threading.Event()

    def run(self) -> None:
        listener = Listener({CHANNEL: lambda payload: self._wake.set()}, on_connected=self._wake.set)
        listener.start()
        try:
            while not self._stop.is_set():
                self._wake.clear()
                try:
                    has_worked = self._work_once()
                except (OperationalError, InterfaceError) as error:
                    _away(error)
                    self._stop.wait(AWAY_SECONDS)
                    continue
                if not has_worked and not self._stop.is_set():
                    self._wake.wait(LOOK_SECONDS)
        finally:
            listener.stop()
            connection.close()

    def end(self) -> None:
        """For signal handlers: ends after the batch that is under way."""
        self._stop.set()
        self._wake.set()

    def _work_once(self) -> bool:
        """Whether there was a job to work at."""
        for job in self._candidates():
            try:
                with JobFolder(job.pk).held() as is_mine:
                    if is_mine and _claimed(job):
                        JobRun(job, self._stop).run()
                        return True
            except FileNotFoundError:
                if not JobFolder(job.pk).path.exists():
                    _end(job, JobState.FAILED, error=_lost(job))
        return False

    def _candidates(self) -> list[Job]:
        """Those that a runner left when it died come first, then the oldest."""
        is_due = Q(state=JobState.QUEUED) & (Q(not_before=None) | Q(not_before__lte=timezone.now()))
        return list(Job.objects.filter(Q(state=JobState.RUNNING) | is_due).order_by("-state", "created_at")[:50])


def _claimed(job: Job) -> bool:
    """Whether this runner has it from now on."""
    now = timezone.now()
    runner = uuid.uuid4()
    changed = Job.objects.filter(pk=job.pk, state__in=UNDER_WAY).update(
        state=JobState.RUNNING, runner=runner, heartbeat_at=now, not_before=None, problem="",
        started_at=job.started_at or now,
    )  # fmt: skip
    if changed:
        job.refresh_from_db()
    return bool(changed)


class JobRun:
    """One turn of one job, until it has ended, has to wait, or the runner is to stop."""

    def __init__(self, job: Job, stop: threading.Event) -> None:
        self._job, self._stop = job, stop
        self._folder = JobFolder(job.pk)
        self._target = PartFile(self._folder.result)
        self._model_digest = ""
        self._since = time.monotonic()  # what the row does not have of the seconds yet

    def run(self) -> None:
        job = self._job
        try:
            with self._folder.input.open("rb") as source:
                done = self._score(source)
            self._end(JobState.SUCCEEDED, rows_total=done.rows, result_bytes=self._folder.result.stat().st_size)
            logger.info("job %s has succeeded: %d rows, %d of them with an error", job.pk, done.rows, done.failed)
        except NotOurs:
            self._let_go()
        except Stopped:
            self._left()
        except MustWait as waiting:
            self._wait(waiting.error)
        except LoaderdError as error:
            if isinstance(error, (*PASSING, ModelTimeout)):
                self._wait(error)
            else:
                self._fail(error)
        except OSError as error:
            if Job.objects.filter(pk=job.pk).exists():
                self._fail(_of_disk(error), is_disk_full=error.errno in _FULL)
        except DatabaseError:
            raise
        except Exception as error:  # the others in the queue have nothing to do with it
            logger.exception("job %s", job.pk)
            self._fail(LoaderdError(f"The runner failed: {type(error).__name__}; its log has the traceback."))

    def _score(self, source: BinaryIO) -> Checkpoint:
        job, options = self._job, Options.from_json(self._job.options)
        version = self._version()
        kept = Checkpoint.from_json(job.checkpoint) if job.checkpoint else None
        self._model_digest = version.digest
        signature = pinning.signature_of(version, user=job.owner_name)
        if job.rows_total is None:
            self._count(source, options)
            source.seek(0)
        asker = Asker(
            version.model_id,
            job.owner_name,
            timeout_seconds=client.time_limit_seconds(),
            pace=Pace(options.batch_rows),
            patience_seconds=PATIENCE_SECONDS,
            stop=self._stop,
        )
        plan = Plan(source, job.input_format, signature, options)
        return Scoring(plan, asker, self._target, job.output_format, self._save).run(kept)

    def _version(self) -> ModelVersion:
        """The version that answers, chosen once. Raises UnknownModel."""
        job = self._job
        if not job.model_id:
            version = pinning.pinned(job.model_name, job.version_asked)
            self._update(version=version, model_id=version.model_id)
            return version
        found = ModelVersion.objects.filter(model_id=job.model_id).first()
        if found is None:
            raise _Gone(
                f"{job.model_id}, which the job began with, is not registered any more; retry it from the start to ask "
                "the version that is meant now."
            )
        return found

    def _count(self, source: BinaryIO, options: Options) -> None:
        """The rows, so that there is a share of them; finds, too, where the file cannot be read."""
        reader = open_reader(source, self._job.input_format, options)
        if self._job.input_format == PARQUET:
            rows = int(reader.size or 0)
        else:
            rows = 0
            for rows, _ in enumerate(reader.rows(), start=1):
                if rows % COUNTED_ROWS == 0:
                    self._update()
        self._update(rows_total=rows)

    def _save(self, checkpoint: Checkpoint) -> None:
        values: dict[str, Any] = {
            "checkpoint": {**checkpoint.to_json(), "of": checkpoint.of or {"model_digest": self._model_digest}},
            "rows_done": checkpoint.rows,
            "rows_failed": checkpoint.failed,
        }
        if checkpoint.rows > self._job.rows_done:
            values["waiting_since"] = None
        self._update(**values)

    def _update(self, **values: Any) -> None:
        """Writes to the row while it is this run's. Raises NotOurs when it is not any more. Waits for Postgres."""
        now = time.monotonic()
        passed, self._since = now - self._since, now
        own = Job.objects.filter(pk=self._job.pk, runner=self._job.runner, state=JobState.RUNNING)
        changed = _persist(
            lambda: own.update(heartbeat_at=timezone.now(), seconds=F("seconds") + passed, **values), self._stop
        )
        if not changed:
            raise NotOurs
        for name, value in values.items():
            setattr(self._job, name, value)

    def _left(self) -> None:
        """The runner is to stop: the next one goes on. Without Postgres it finds the job as one whose runner died."""
        own = Job.objects.filter(pk=self._job.pk, runner=self._job.runner, state=JobState.RUNNING)
        with contextlib.suppress(OperationalError, InterfaceError):
            own.update(state=JobState.QUEUED, runner=None)

    def _wait(self, error: LoaderdError) -> None:
        job, now = self._job, timezone.now()
        since = job.waiting_since or now
        limit = timedelta(minutes=config().JOB_WAIT_MINUTES)
        if now - since >= limit:
            error.message += f" The job waited {config().JOB_WAIT_MINUTES} minutes for it (JOB_WAIT_MINUTES)."
            self._fail(error)
            return
        again_at = now + timedelta(seconds=AGAIN_SECONDS)
        self._ended(state=JobState.QUEUED, problem=error.message, waiting_since=since, not_before=again_at)

    def _fail(self, error: LoaderdError, *, is_disk_full: bool = False) -> None:
        """What is written stays, to be gone on with; where the disk is full, its room is given back."""
        logger.warning("job %s has failed: %s", self._job.pk, error.message)
        forgotten = {"checkpoint": None, "rows_done": 0, "rows_failed": 0} if is_disk_full else {}
        if self._end(JobState.FAILED, error=error.to_message(), **forgotten) and not self._job.rows_done:
            self._target.remove()

    def _end(self, state: Any, **values: Any) -> bool:
        return self._ended(state=state, problem="", waiting_since=None, finished_at=timezone.now(), **values)

    def _ended(self, **values: Any) -> bool:
        """Writes how the turn ended; False where that could not be written before the runner has to stop."""
        try:
            self._update(**values)
        except NotOurs:  # cancelled or removed at the last moment
            self._let_go()
        except Stopped:
            return False
        return True

    def _let_go(self) -> None:
        """What a cancelled job has written is kept for who goes on with it; a removed one leaves nothing."""
        if not Job.objects.filter(pk=self._job.pk).exists():
            self._target.remove()
            self._folder.result.unlink(missing_ok=True)


class NotOurs(Stopped):
    """The job was cancelled or removed, or another runner has it."""


class _Gone(LoaderdError):
    """The model will not come back."""

    code = "model_gone"
    http_status = 404


def _persist(write: Callable[[], int], stop: threading.Event) -> int:
    """What `write` returns; while Postgres is away it is tried again, and given up when the runner is to stop."""
    while True:
        try:
            return write()
        except (OperationalError, InterfaceError) as error:
            _away(error)
            if stop.wait(AWAY_SECONDS):
                raise Stopped from error


def _away(error: Exception) -> None:
    logger.warning("the jobs wait for Postgres: %s", str(error).strip())
    connection.close()


def _end(job: Job, state: Any, error: dict[str, Any]) -> None:
    Job.objects.filter(pk=job.pk, state__in=UNDER_WAY).update(state=state, error=error, finished_at=timezone.now())


def _lost(job: Job) -> dict[str, Any]:
    return LoaderdError(f"The files of the job {job.pk} are not there any more; send the file again.").to_message()


def _of_disk(error: OSError) -> LoaderdError:
    if error.errno in _FULL:
        return LoaderdError(
            "The disk of the state folder is full, so what was written was removed; make room there, then retry."
        )
    return LoaderdError(f"The job's files cannot be read or written: {error}; look at the disk of the state folder.")
