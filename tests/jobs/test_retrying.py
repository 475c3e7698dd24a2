"""A job that failed or was cancelled goes on behind what is written, and says why where it cannot."""

# ruff: noqa: F811 (fixtures are imported by name)

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator

import pytest
from django.contrib.auth.models import User

from loaderd.errors import Overloaded, StateForbids, UnknownModel
from modelhub.conf import Config
from modelhub.jobs import retrying, submitting
from modelhub.jobs.folders import JobFolder
from modelhub.jobs.models import Job, JobState
from modelhub.jobs.results import PartFile
from modelhub.jobs.retrying import CannotGoOn, retry
from modelhub.registry.models import Alias, ModelVersion
from tests.jobs.conftest import REFUSED, Model
from tests.jobs.test_running import (  # noqa: F401 (fixtures)
    TEXTS,
    WANTED,
    _short,
    ada,
    at_the_fifth,
    labels,
    submit,
    turn,
    version,
)

pytestmark = pytest.mark.django_db
Submit = Callable[..., Job]


@pytest.fixture
def cancelled(submit: Submit, model: Model, monkeypatch: pytest.MonkeyPatch) -> Job:
    """With some of its rows written."""
    job = submit()
    with monkeypatch.context() as patched:
        at_the_fifth(patched, lambda: submitting.cancel(job))
        turn()
    job.refresh_from_db()
    assert job.state == JobState.CANCELLED
    assert 0 < job.rows_done < 300
    return job


def ended(job: Job) -> Job:
    turn()
    job.refresh_from_db()
    return job


def test_a_cancelled_job_goes_on_behind_what_is_written(cancelled: Job, model: Model, ada: User) -> None:
    done, seconds = cancelled.rows_done, cancelled.seconds
    model.asked.clear()
    job = retry(cancelled, ada)
    assert (job.state, job.rows_done, job.finished_at, job.error) == (JobState.QUEUED, done, None, None)
    job = ended(job)
    assert (job.state, job.rows_done, job.rows_total) == (JobState.SUCCEEDED, 300, 300)
    assert labels(job) == WANTED
    assert sum(model.asked) == 300 - done, "no row is asked twice"
    assert job.seconds > seconds


def test_a_failed_job_goes_on_behind_what_is_written(submit: Submit, model: Model, ada: User) -> None:
    job = submit()
    model.on_asked = lambda: {}["nothing"] if len(model.asked) == 7 else None
    job = ended(job)
    done = job.rows_done
    assert job.state == JobState.FAILED
    assert 0 < done < 300
    model.on_asked = lambda: None
    model.asked.clear()
    job = ended(retry(job, ada))
    assert (job.state, job.error) == (JobState.SUCCEEDED, None)
    assert labels(job) == WANTED
    assert sum(model.asked) == 300 - done


def test_a_strict_job_goes_on_at_the_row_that_ended_it(submit: Submit, model: Model, ada: User) -> None:
    data = "text\n" + "".join(f"{REFUSED if number == 25 else text}\n" for number, text in enumerate(TEXTS))
    job = ended(submit(data=data, strict=True))
    assert (job.state, job.error["code"], job.rows_done) == (JobState.FAILED, "row_refused", 25)
    job = ended(retry(job, ada))
    assert (job.state, job.error["code"], job.rows_done) == (JobState.FAILED, "row_refused", 25)


def test_what_was_written_behind_the_kept_place_is_cut(cancelled: Job, model: Model, ada: User) -> None:
    with PartFile(JobFolder(cancelled.pk).result).part.open("ab") as part:
        part.write(b'row 17,"lab')
    assert labels(ended(retry(cancelled, ada))) == WANTED


def test_a_job_that_was_cancelled_when_all_was_written_ends_without_asking(
    submit: Submit, model: Model, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, put = submit(), PartFile.put_in_place

    def late(self: PartFile, kind: str) -> None:
        put(self, kind)
        submitting.cancel(job)

    with monkeypatch.context() as patched:
        patched.setattr(PartFile, "put_in_place", late)
        turn()
    job.refresh_from_db()
    assert job.state == JobState.CANCELLED
    model.asked.clear()
    job = ended(retry(job, ada))
    assert job.state == JobState.SUCCEEDED
    assert model.asked == []
    assert labels(job) == WANTED


def test_one_that_never_ran_begins(submit: Submit, model: Model, ada: User) -> None:
    job = submitting.cancel(submit())
    assert labels(ended(retry(job, ada))) == WANTED


class TestWhatCannotGoOn:
    """It says why, changes nothing, and begins anew where somebody wants that."""

    def refused(self, job: Job, user: User) -> str:
        with pytest.raises(CannotGoOn) as found:
            retry(job, user)
        job.refresh_from_db()
        assert job.state in ("cancelled", "failed")
        assert found.value.message.endswith("Ask with from_start to begin anew.")
        return found.value.message

    @pytest.mark.parametrize("is_longer", [True, False])
    def test_another_file(self, cancelled: Job, model: Model, ada: User, is_longer: bool) -> None:
        texts = [text.replace("row", "ROW") for text in TEXTS] + (["more"] if is_longer else [])
        JobFolder(cancelled.pk).input.write_text("text\n" + "".join(f"{text}\n" for text in texts))
        assert "its file is not the one that was sent" in self.refused(cancelled, ada)
        assert (retrying.obstacle(cancelled, reads_file=False) == "") is not is_longer
        job = ended(retry(cancelled, ada, from_start=True))
        assert (job.state, job.rows_done) == (JobState.SUCCEEDED, len(texts))
        assert job.input_bytes == JobFolder(job.pk).input.stat().st_size

    def test_another_version(self, cancelled: Job, model: Model, ada: User, version: ModelVersion) -> None:
        ModelVersion.objects.filter(pk=version.pk).update(digest="f" * 64)
        assert "m-v1 has other files than" in self.refused(cancelled, ada)
        Alias.objects.update(version=ModelVersion.objects.get(model_id="m-v2"))
        version.delete()
        assert "m-v1, which answered its rows, is not registered any more" in self.refused(cancelled, ada)
        job = ended(retry(cancelled, ada, from_start=True))
        assert (job.state, job.model_id) == (JobState.SUCCEEDED, "m-v2")
        assert labels(job) == WANTED

    def test_no_version_at_all(self, cancelled: Job, ada: User) -> None:
        Alias.objects.all().delete()
        ModelVersion.objects.all().delete()
        with pytest.raises(UnknownModel):
            retry(cancelled, ada, from_start=True)

    def test_a_result_that_is_gone(self, cancelled: Job, model: Model, ada: User) -> None:
        PartFile(JobFolder(cancelled.pk).result).part.unlink()
        assert "what it had written is not there any more" in self.refused(cancelled, ada)
        assert labels(ended(retry(cancelled, ada, from_start=True))) == WANTED

    def test_a_file_that_was_refused(self, submit: Submit, model: Model, ada: User) -> None:
        job = ended(submit(data='text\nok\n"never closed\n'))
        assert "its file was refused" in self.refused(job, ada)


def test_anew_leaves_nothing_of_before(cancelled: Job, model: Model, ada: User) -> None:
    job = retry(cancelled, ada, from_start=True)
    assert (job.rows_done, job.rows_total, job.checkpoint, job.model_id, job.seconds) == (0, None, None, "", 0.0)
    assert [path.name for path in JobFolder(job.pk).path.iterdir()] == ["input"]
    model.asked.clear()
    assert labels(ended(job)) == WANTED
    assert sum(model.asked) == 300


def test_what_is_not_over_is_not_retried(submit: Submit, model: Model, ada: User) -> None:
    job = submit()
    with pytest.raises(StateForbids, match="is queued"):
        retry(job, ada)
    with pytest.raises(StateForbids, match="has succeeded"):
        retry(ended(job), ada, from_start=True)


def test_a_runner_that_is_leaving_is_waited_for(
    cancelled: Job, model: Model, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[bool] = []
    held = JobFolder.held

    @contextlib.contextmanager
    def leaving(self: JobFolder) -> Iterator[bool]:
        with held(self) as is_mine:
            looks.append(is_mine)
            yield is_mine and len(looks) > 3

    with monkeypatch.context() as patched:
        patched.setattr(JobFolder, "held", leaving)
        retry(cancelled, ada)
    assert len(looks) == 4
    assert labels(ended(cancelled)) == WANTED


def test_a_runner_that_stays_is_left_to_end(cancelled: Job, ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "LEAVING_SECONDS", 0.1)
    with JobFolder(cancelled.pk).held(), pytest.raises(StateForbids, match="just leaving"):
        retry(cancelled, ada)


def test_without_its_file_it_is_sent_again(cancelled: Job, ada: User) -> None:
    JobFolder(cancelled.pk).remove()
    with pytest.raises(StateForbids, match="send it again"):
        retry(cancelled, ada, from_start=True)


def test_it_takes_one_of_its_owners_places(
    cancelled: Job, submit: Submit, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submitting, "config", lambda: Config(JOB_MAX_OPEN=1))
    submit()
    with pytest.raises(Overloaded, match="1 jobs of ada"):
        retry(cancelled, User.objects.create_user("olaf"))


def test_a_full_disk_gets_its_room_back(
    submit: Submit, model: Model, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, write, written = submit(), PartFile.write, [0]

    def full(self: PartFile, data: bytes) -> None:
        written[0] += 1
        if written[0] == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, data)

    with monkeypatch.context() as patched:
        patched.setattr(PartFile, "write", full)
        job = ended(job)
    assert (job.state, job.rows_done, job.checkpoint) == (JobState.FAILED, 0, None)
    assert "what was written was removed; make room there, then retry" in job.error["message"]
    assert [path.name for path in JobFolder(job.pk).path.iterdir()] == ["input"]
    assert labels(ended(retry(job, ada))) == WANTED
