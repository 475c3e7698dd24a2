"""The runner: it takes what is queued, goes on with what another left, waits for models, and sees what people want."""

from __future__ import annotations

import csv
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError
from django.utils import timezone

from loaderd.errors import ModelNotLoaded
from modelhub.conf import Config
from modelhub.jobs import asking, pinning, purging, running, scoring, submitting
from modelhub.jobs.checkpoint import Checkpoint
from modelhub.jobs.folders import JobFolder, jobs_dir
from modelhub.jobs.models import Job, JobState
from modelhub.jobs.options import Options
from modelhub.jobs.running import JobRun, Runner
from modelhub.private_dir import ensure_private_dir
from modelhub.registry.choices import Status
from modelhub.registry.models import Alias, Model, ModelVersion
from tests.deadline import wait_until
from tests.jobs.conftest import SIGNATURE, answer_to
from tests.jobs.conftest import Model as Answering

pytestmark = pytest.mark.django_db

TEXTS = [f"row {number}" for number in range(300)]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(asking, "RETRY_SECONDS", (0.0,))
    monkeypatch.setattr(running, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(running, "AWAY_SECONDS", 0.0)


@pytest.fixture
def version(db: None) -> ModelVersion:
    lineage = Model.objects.create(name="m", type="sentiment")
    made = [
        ModelVersion.objects.create(
            lineage=lineage, model_id=f"m-v{number}", name="m", version=f"{number}.0", path=f"sentiment/m-v{number}",
            framework="sklearn", artifact_format="skops", signature=SIGNATURE, status=Status.LOADED,
        )
        for number in (1, 2)
    ]  # fmt: skip
    Alias.objects.create(lineage=lineage, name="live", version=made[0])
    return made[0]


@pytest.fixture
def ada(db: None) -> User:
    return User.objects.create_user("ada")


@pytest.fixture
def submit(version: ModelVersion, ada: User) -> Iterator[Callable[..., Job]]:
    made: list[uuid.UUID] = []

    def submit(model: str = "m", data: str | None = None, **options: Any) -> Job:
        folder = JobFolder(uuid.uuid4())
        ensure_private_dir(jobs_dir())
        folder.make()
        made.append(folder.id)
        if data is None:
            data = "text\n" + "".join(f"{text}\n" for text in TEXTS)
        folder.input.write_text(data)
        return submitting.submit(
            folder, model=model, version="", user=ada, input_name="../in.csv", input_format="csv",
            output_format="csv", options=Options(**{"batch_rows": 10, **options}),
        )  # fmt: skip

    yield submit
    for one in made:
        JobFolder(one).remove()


def turn(stop: threading.Event | None = None) -> bool:
    """One look for a job, and its turn."""
    return Runner(stop or threading.Event())._work_once()


def labels(job: Job) -> list[str]:
    with JobFolder(job.pk).result.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == TEXTS
    return [row["label"] for row in rows]


WANTED = [answer_to(text)["label"] for text in TEXTS]


def test_a_job_from_asked_for_to_its_result(submit: Callable[..., Job], model: Answering, ada: User) -> None:
    job = submit()
    assert (job.state, job.rows_total, job.model_id) == (JobState.QUEUED, None, "")
    assert job.input_name == "in.csv"
    assert turn()
    job.refresh_from_db()
    assert job.state == JobState.SUCCEEDED
    assert (job.rows_total, job.rows_done, job.rows_failed) == (300, 300, 0)
    assert job.model_id == "m-v1", "the live version"
    assert job.started_at is not None
    assert job.finished_at is not None
    assert job.seconds > 0
    assert job.progress == 1.0
    assert labels(job) == WANTED
    folder = JobFolder(job.pk)
    assert job.result_bytes == folder.result.stat().st_size
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in folder.path.iterdir()} == {"input", "result"}
    assert folder.result.stat().st_mode & 0o777 == 0o600
    assert not turn(), "nothing is left"


def test_a_runner_that_is_told_to_stop_leaves_a_job_that_the_next_one_ends(
    submit: Callable[..., Job], model: Answering
) -> None:
    job, stop = submit(), threading.Event()
    model.on_asked = lambda: stop.set() if len(model.asked) == 10 else None
    assert turn(stop)
    job.refresh_from_db()
    assert job.state == JobState.QUEUED
    assert 0 < job.rows_done < 300
    assert turn()
    job.refresh_from_db()
    assert job.state == JobState.SUCCEEDED
    assert labels(job) == WANTED
    assert sum(model.asked) < 300 + 20, "it went on where it was"


def test_a_runner_that_died_leaves_a_job_that_the_next_one_ends(submit: Callable[..., Job], model: Answering) -> None:
    job, stop = submit(), threading.Event()
    model.on_asked = lambda: stop.set() if len(model.asked) == 10 else None
    turn(stop)
    # As a SIGKILL leaves it: the row says that it runs, and what was written since is no whole row.
    Job.objects.filter(pk=job.pk).update(state=JobState.RUNNING, runner=uuid.uuid4())
    with (JobFolder(job.pk).path / "result.part").open("ab") as part:
        part.write(b'row 17,"lab')
    model.on_asked = lambda: None
    assert turn()
    job.refresh_from_db()
    assert job.state == JobState.SUCCEEDED
    assert labels(job) == WANTED


def test_the_version_is_chosen_once(submit: Callable[..., Job], model: Answering) -> None:
    job, stop = submit(), threading.Event()
    model.on_asked = lambda: stop.set() if len(model.asked) == 5 else None
    turn(stop)
    Alias.objects.update(version=ModelVersion.objects.get(model_id="m-v2"))
    turn()
    job.refresh_from_db()
    assert (job.state, job.model_id) == (JobState.SUCCEEDED, "m-v1")


def test_a_model_that_is_away_is_waited_for_while_others_get_their_turn(
    submit: Callable[..., Job], model: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = submit(), submit()
    model.errors = [ModelNotLoaded("m-v1 is not loaded; load it.")]
    assert turn()
    first.refresh_from_db()
    assert first.state == JobState.QUEUED
    assert first.problem == "m-v1 is not loaded; load it."
    assert first.not_before > timezone.now()
    assert turn()
    second.refresh_from_db()
    assert second.state == JobState.SUCCEEDED
    assert not turn(), "the first one is not due yet"
    Job.objects.filter(pk=first.pk).update(not_before=timezone.now())
    assert turn()
    first.refresh_from_db()
    assert (first.state, first.problem, first.waiting_since) == (JobState.SUCCEEDED, "", None)


def test_a_model_that_stays_away_fails_the_job_in_the_end(submit: Callable[..., Job], model: Answering) -> None:
    job = submit()
    Job.objects.update(waiting_since=timezone.now() - timedelta(hours=2))
    model.errors = [ModelNotLoaded("m-v1 is not loaded; load it.")]
    turn()
    job.refresh_from_db()
    assert job.state == JobState.FAILED
    assert job.error["code"] == "model_not_loaded"
    assert job.error["message"].endswith("The job waited 60 minutes for it (JOB_WAIT_MINUTES).")
    assert [path.name for path in JobFolder(job.pk).path.iterdir()] == ["input"]


def at_the_fifth(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any]) -> None:
    """Does it just before the runner keeps its progress for the fifth time."""
    save, saved = JobRun._save, []

    def saving(self: JobRun, checkpoint: Checkpoint) -> None:
        saved.append(checkpoint)
        if len(saved) == 5:
            act()
        save(self, checkpoint)

    monkeypatch.setattr(JobRun, "_save", saving)


def test_what_is_cancelled_while_it_runs_ends_at_the_next_look(
    submit: Callable[..., Job], model: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit()
    at_the_fifth(monkeypatch, lambda: submitting.cancel(job))
    turn()
    job.refresh_from_db()
    assert job.state == JobState.CANCELLED
    assert 0 < job.rows_done < 300
    assert {path.name for path in JobFolder(job.pk).path.iterdir()} == {"input", "result.part"}, "to be gone on with"


def test_what_is_removed_while_it_runs_is_gone(
    submit: Callable[..., Job], model: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit()
    at_the_fifth(monkeypatch, lambda: submitting.remove(Job.objects.get(pk=job.pk)))
    turn()
    assert not Job.objects.exists()
    assert not JobFolder(job.pk).path.exists()


def test_a_file_that_cannot_be_read_to_its_end_fails_before_the_model_is_asked(
    submit: Callable[..., Job], model: Answering
) -> None:
    job = submit(data='text\nok\n"never closed\n')
    turn()
    job.refresh_from_db()
    assert job.state == JobState.FAILED
    assert "line 3 a quote is never closed" in job.error["message"]
    assert model.asked == []


def test_a_version_that_is_gone_fails_the_job(submit: Callable[..., Job], model: Answering) -> None:
    job = submit()
    Job.objects.update(model_id="m-v0")
    turn()
    job.refresh_from_db()
    assert job.state == JobState.FAILED
    assert "m-v0, which the job began with, is not registered any more" in job.error["message"]


def test_files_that_are_gone_fail_the_job(submit: Callable[..., Job], model: Answering) -> None:
    job = submit()
    JobFolder(job.pk).remove()
    turn()
    job.refresh_from_db()
    assert job.state == JobState.FAILED
    assert "are not there any more" in job.error["message"]


def test_what_nobody_expected_fails_one_job_and_not_the_next(
    submit: Callable[..., Job], model: Answering, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = submit(), submit()
    model.on_asked = lambda: {}["nothing"] if len(model.asked) == 3 else None
    turn()
    turn()
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.state, second.state) == (JobState.FAILED, JobState.SUCCEEDED)
    assert first.error["message"] == "The runner failed: KeyError; its log has the traceback."
    assert "Traceback" in caplog.text


def test_a_folder_that_somebody_works_in_is_left_alone(submit: Callable[..., Job], model: Answering) -> None:
    job = submit()
    with JobFolder(job.pk).held() as is_mine:
        assert is_mine
        assert not turn()
    assert turn()


def test_postgres_may_be_away_for_a_while(
    submit: Callable[..., Job], model: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, tries, persist = submit(), [0], running._persist
    monkeypatch.setattr(running.connection, "close", lambda: None)  # the test's transaction lives in it

    def flaky(write: Callable[[], int], stop: threading.Event) -> int:
        def once() -> int:
            tries[0] += 1
            if tries[0] % 3 == 0:
                raise OperationalError("the server closed the connection")
            return write()

        return persist(once, stop)

    monkeypatch.setattr(running, "_persist", flaky)
    turn()
    job.refresh_from_db()
    assert job.state == JobState.SUCCEEDED
    assert labels(job) == WANTED


@pytest.mark.django_db(transaction=True)
def test_a_job_wakes_the_runner_and_stopping_ends_it(submit: Callable[..., Job], model: Answering) -> None:
    runner = Runner(threading.Event())
    thread = threading.Thread(target=runner.run)
    thread.start()
    try:
        job = submit()
        wait_until(lambda: Job.objects.get(pk=job.pk).is_ended, 10, "the job has ended")
        assert Job.objects.get(pk=job.pk).state == JobState.SUCCEEDED
    finally:
        runner.end()
        thread.join(10)
    assert not thread.is_alive()


class TestPurging:
    def test_old_jobs_go_with_their_files_and_young_ones_stay(
        self, submit: Callable[..., Job], model: Answering
    ) -> None:
        old, young, waiting = submit(), submit(), submit()
        for job in (old, young):
            submitting.cancel(job)
        Job.objects.filter(pk=old.pk).update(finished_at=timezone.now() - timedelta(days=8))
        step = purging.purge_jobs(timezone.now())
        assert step() == 1
        assert step() is None
        assert set(Job.objects.values_list("pk", flat=True)) == {young.pk, waiting.pk}
        assert not JobFolder(old.pk).path.exists()
        assert JobFolder(young.pk).path.exists()

    def test_folders_of_no_job_go_once_no_upload_can_be_under_way(
        self, db: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ensure_private_dir(jobs_dir())
        stray, other = JobFolder(uuid.uuid4()), jobs_dir() / "not-a-job"
        stray.make()
        other.mkdir(exist_ok=True)
        step = purging.purge_jobs(timezone.now())
        step()
        assert stray.path.exists()
        monkeypatch.setattr(purging, "STRAY_SECONDS", -1.0)
        step()
        assert not stray.path.exists()
        assert other.exists()
        other.rmdir()

    def test_it_is_part_of_the_maintenance(self) -> None:
        from modelhub.telemetry.maintenance import PURGES

        assert purging.purge_jobs in PURGES


class TestPinning:
    def test_names_mean_what_they_mean_at_the_door(self, version: ModelVersion) -> None:
        second = ModelVersion.objects.get(model_id="m-v2")
        assert pinning.pinned("m") == version
        assert pinning.pinned("m", "2.0") == second
        assert pinning.pinned("m", "live") == version
        assert pinning.pinned("m-v2") == second
        Alias.objects.all().delete()
        assert pinning.pinned("m") == second, "the highest loaded one"
        ModelVersion.objects.filter(pk=second.pk).update(status=Status.UNLOADED)
        assert pinning.pinned("m") == version
        ModelVersion.objects.update(status=Status.UNLOADED)
        assert pinning.pinned("m") == second

    @pytest.mark.parametrize(("name", "asked"), [("x", ""), ("m", "9"), ("m-v1", "2.0"), ("m\0", "")])
    def test_what_is_not_there_is_said(self, version: ModelVersion, name: str, asked: str) -> None:
        with pytest.raises(submitting.LoaderdError) as refused:
            pinning.pinned(name, asked)
        assert refused.value.code == "model_not_found"


def test_a_user_has_so_many_jobs_at_once(
    submit: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, ada: User
) -> None:
    limited = Config(JOB_MAX_OPEN=2)
    monkeypatch.setattr(submitting, "config", lambda: limited)
    submit()
    submitting.cancel(submit())
    submit()
    with pytest.raises(submitting.Overloaded, match="2 jobs of ada are queued or running"):
        submit()
