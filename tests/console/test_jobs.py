"""Jobs in the console: the list with its progress, a job's page, the dialogs that cancel, retry and remove it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from modelhub.console.jobs import dialogs
from modelhub.jobs.checkpoint import Checkpoint
from modelhub.jobs.folders import JobFolder
from modelhub.jobs.models import Job, JobState
from modelhub.jobs.results import PartFile
from tests.console.conftest import MakeVersion, client_of

pytestmark = pytest.mark.django_db

LIST = reverse("admin:jobs_job_changelist")


def make(**fields: object) -> Job:
    values = {
        "model_name": "sentiment", "owner_name": "ada", "input_name": "mails.csv", "input_format": "csv",
        "output_format": "csv", "input_bytes": 5 << 20,
    }  # fmt: skip
    return Job.objects.create(**{**values, **fields})


def page(client: Client, job: Job) -> str:
    answer = client.get(reverse("admin:jobs_job_change", args=[job.pk]))
    assert answer.status_code == 200
    return answer.content.decode()


@pytest.fixture
def running(make_version: MakeVersion) -> Job:
    version = make_version("sentiment-v1")
    return make(
        state=JobState.RUNNING, version=version, model_id="sentiment-v1", rows_total=4000, rows_done=1000,
        rows_failed=3, seconds=2.0, started_at=timezone.now() - timedelta(seconds=2), heartbeat_at=timezone.now(),
    )  # fmt: skip


def test_the_list_tells_how_far_each_is(admin: Client, running: Job) -> None:
    shown = admin.get(LIST).content.decode()
    for told in ("mails.csv", "sentiment-v1", "1,000 of 4,000 (25.0%)</span>, 3 with an error", "Asked by", "running"):
        assert told in shown, told


def test_a_page_of_many_costs_no_more_queries_than_one_of_one(admin: Client, running: Job) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as found:
            assert admin.get(LIST).status_code == 200
        return len(found)

    queries()  # what is remembered for good is read
    one = queries()
    for _ in range(20):
        make(version=running.version, model_id="sentiment-v1", checkpoint={"own": ["x"] * 1000})
    assert queries() == one


def test_an_empty_list_says_how_jobs_come(admin: Client) -> None:
    assert "No file was predicted yet" in admin.get(LIST).content.decode()


def test_a_page_of_a_running_job_is_live_and_offers_to_cancel(admin: Client, running: Job) -> None:
    shown = page(admin, running)
    assert 'hx-trigger="every 2s' in shown
    assert 'value="25.0"' in shown
    assert "about 6 s left" in shown
    assert "1,000 of 4,000</span> rows (25.0%), 3 with an error; 500 a second" in shown
    assert reverse("console:job-cancel", args=[running.pk]) in shown
    assert "Download" not in shown
    assert "sentiment-v1" in shown


def test_a_page_of_a_job_that_succeeded_leads_to_its_result(admin: Client, viewer: Client, running: Job) -> None:
    Job.objects.update(state=JobState.SUCCEEDED, rows_done=4000, result_bytes=7 << 20, finished_at=timezone.now())
    shown = page(admin, running)
    assert f'href="/api/jobs/{running.pk}/result"' in shown
    assert "7 MiB" in shown
    assert "every 2s" not in shown
    assert "Download" not in page(viewer, running), "the result is another's"


def test_why_it_failed_or_waits_is_told(admin: Client) -> None:
    failed = make(state=JobState.FAILED, error={"code": "x", "message": "Line 3 is <odd>."}, finished_at=timezone.now())
    waiting = make(problem="m is not loaded; load it.")
    assert "Line 3 is &lt;odd&gt;." in page(admin, failed)
    assert "m is not loaded; load it." in page(admin, waiting)
    assert "Line 3 is &lt;odd&gt;." in admin.get(LIST).content.decode()


def test_hardly_all_is_not_all(admin: Client, running: Job) -> None:
    Job.objects.update(rows_done=3999, state=JobState.FAILED, error={"code": "x", "message": "no"})
    assert "3,999 of 4,000 (99.9%)" in admin.get(LIST).content.decode()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "input found by name; delimiter comma"),
        ({"columns": ["a", "b"], "delimiter": "\t", "header": False}, "input in a, b; delimiter tabulator; no header"),
        (
            {"scores": "none", "prefix": "p_", "strict": True, "batch_rows": 1000, "guard_formulas": False},
            "without scores; prefix p_; ends at the first wrong row; at most 1,000 rows a request; formulas unguarded",
        ),
    ],
)
def test_its_options_are_told_in_words(admin: Client, options: dict[str, object], told: str) -> None:
    assert told in page(admin, make(options=options))


class TestWhatNext:
    def test_a_model_that_is_waited_for_can_be_loaded_from_here(
        self, admin: Client, viewer: Client, make_version: MakeVersion
    ) -> None:
        version = make_version("sentiment-v1", status="unloaded")
        job = make(version=version, model_id="sentiment-v1", problem="sentiment-v1 is unloaded; load it.")
        load = reverse("admin:registry_modelversion_load", args=[version.pk])
        shown = page(admin, job)
        assert "No row is predicted yet." in shown
        assert "goes on by itself as soon as the model answers" in shown
        assert f'data-mh-dialog="{load}"' in shown
        assert load not in page(viewer, job)
        version.status = "loaded"
        version.save()
        assert load not in page(admin, job)

    @pytest.mark.parametrize(
        ("code", "rows", "told"),
        [
            ("file_refused", 0, "Correct the file and send it again"),
            ("row_refused", 1000, "Send the file without that row"),
            ("model_not_loaded", 1000, "Load the model, then retry: it goes on behind row 1,000."),
            ("internal_error", 0, "Retry begins with the first row."),
        ],
    )
    def test_after_a_failure(self, admin: Client, running: Job, code: str, rows: int, told: str) -> None:
        Job.objects.update(
            state=JobState.FAILED, rows_done=rows, rows_failed=0, error={"code": code, "message": "It failed."}
        )
        shown = page(admin, running)
        assert told in shown
        assert reverse("console:job-retry", args=[running.pk]) in shown


class TestRetrying:
    @pytest.fixture
    def folder(self, running: Job) -> Iterator[JobFolder]:
        folder = JobFolder(running.pk)
        folder.make()
        folder.input.write_text("text\n" + "a\n" * 4000)
        PartFile(folder.result).part.write_text("text,label,error\n")
        checkpoint = Checkpoint("sentiment-v1", offset=2005, line=1002, written=17, rows=1000, failed=3)
        Job.objects.update(
            state=JobState.CANCELLED, finished_at=timezone.now(), checkpoint=checkpoint.to_json(),
            input_bytes=folder.input.stat().st_size, input_digest=folder.input_digest(),
        )  # fmt: skip
        yield folder
        folder.remove()

    def test_the_dialog_says_where_it_goes_on_and_does_it(self, admin: Client, running: Job, folder: JobFolder) -> None:
        address = reverse("console:job-retry", args=[running.pk])
        assert f'data-mh-dialog="{address}"' in page(admin, running)
        asked = admin.get(address, headers={"HX-Request": "true"}).content.decode()
        assert "It goes on behind row 1,000; what is written stays." in asked
        answer = admin.post(address, headers={"HX-Request": "true"})
        assert answer.status_code == 200
        assert "Queued again: it goes on behind row 1,000." in answer.content.decode()
        running.refresh_from_db()
        assert (running.state, running.rows_done) == (JobState.QUEUED, 1000)
        entry = LogEntry.objects.get()
        assert entry.get_change_message() == "In the admin. Retried, behind what was written."

    def test_what_cannot_go_on_leads_to_beginning_anew(self, admin: Client, running: Job, folder: JobFolder) -> None:
        address = reverse("console:job-retry", args=[running.pk])
        folder.input.write_text("text\nb\n")
        asked = admin.get(address, headers={"HX-Request": "true"}).content.decode()
        assert "It cannot go on where it stopped: its file is not the one that was sent." in asked
        assert f'data-mh-dialog="{address}?from_start=1"' in asked
        assert admin.post(address, headers={"HX-Request": "true"}).status_code == 409
        Job.objects.update(model_name="sentiment-v1")
        anew = admin.get(f"{address}?from_start=1", headers={"HX-Request": "true"}).content.decode()
        assert "1,000 rows that are written are thrown away." in anew
        assert admin.post(f"{address}?from_start=1", headers={"HX-Request": "true"}).status_code == 200
        running.refresh_from_db()
        assert (running.state, running.rows_done, running.checkpoint) == (JobState.QUEUED, 0, None)
        assert LogEntry.objects.get().get_change_message() == "In the admin. Begun anew."

    def test_what_is_not_over_is_not_retried(self, admin: Client, running: Job) -> None:
        address = reverse("console:job-retry", args=[running.pk])
        assert address not in page(admin, running)
        assert "there is nothing to retry" in admin.get(address, headers={"HX-Request": "true"}).content.decode()
        assert admin.post(address, headers={"HX-Request": "true"}).status_code == 409

    def test_who_may_not_is_told_so(self, viewer: Client, operator: Client, running: Job, folder: JobFolder) -> None:
        address = reverse("console:job-retry", args=[running.pk])
        for client in (viewer, operator):
            assert client.post(address, headers={"HX-Request": "true"}).status_code == 403
        assert address not in page(viewer, running)
        Job.objects.update(owner=User.objects.get(username="vera"))
        assert viewer.post(address, headers={"HX-Request": "true"}).status_code == 403, "one may not predict any more"
        Job.objects.update(owner=User.objects.get(username="olaf"))
        assert operator.post(address, headers={"HX-Request": "true"}).status_code == 200


class TestCancelling:
    def test_the_dialog_says_what_is_lost_and_does_it(self, admin: Client, running: Job) -> None:
        address = reverse("console:job-cancel", args=[running.pk])
        asked = admin.get(address, headers={"HX-Request": "true"}).content.decode()
        assert "1,000 rows are predicted; they are kept, and Retry goes on behind them." in asked
        answer = admin.post(address, headers={"HX-Request": "true"})
        assert answer.status_code == 200
        assert "Cancelled: mails.csv by sentiment-v1." in answer.content.decode()
        running.refresh_from_db()
        assert running.state == JobState.CANCELLED
        entry = LogEntry.objects.get()
        assert (entry.user.username, entry.get_change_message()) == ("ada", "In the admin. Cancelled.")

    def test_what_is_over_cannot_be_cancelled(self, admin: Client, running: Job) -> None:
        Job.objects.update(state=JobState.SUCCEEDED)
        address = reverse("console:job-cancel", args=[running.pk])
        assert "there is nothing to cancel" in admin.get(address, headers={"HX-Request": "true"}).content.decode()
        assert admin.post(address, headers={"HX-Request": "true"}).status_code == 409

    def test_who_may_not_is_told_so(self, viewer: Client, operator: Client, running: Job) -> None:
        address = reverse("console:job-cancel", args=[running.pk])
        for client in (viewer, operator):
            assert client.post(address, headers={"HX-Request": "true"}).status_code == 403
        assert 'data-mh-dialog="' + address not in page(viewer, running)
        Job.objects.update(owner=User.objects.get(username="olaf"))
        assert operator.post(address, headers={"HX-Request": "true"}).status_code == 200


class TestRemoving:
    @pytest.fixture
    def folder(self, running: Job) -> Iterator[JobFolder]:
        folder = JobFolder(running.pk)
        folder.make()
        folder.input.write_text("text\na\n")
        folder.result.write_text("text,label,error\na,good,\n")
        yield folder
        folder.remove()

    @pytest.mark.parametrize(
        ("state", "told"),
        [
            (JobState.SUCCEEDED, "Its file (5 MiB) and its result (7 MiB) are deleted, and it goes from the list."),
            (JobState.FAILED, "Its file (5 MiB) and what is written of its result are deleted; it cannot be retried"),
            (JobState.RUNNING, "It ends. Its file (5 MiB) and what is written of its result are deleted."),
        ],
    )
    def test_the_dialog_says_what_goes_and_does_it(
        self, admin: Client, running: Job, folder: JobFolder, state: str, told: str
    ) -> None:
        Job.objects.update(state=state, result_bytes=7 << 20)
        address = reverse("console:job-remove", args=[running.pk])
        assert f'data-mh-dialog="{address}"' in page(admin, running)
        asked = admin.get(address, headers={"HX-Request": "true"}).content.decode()
        assert told in asked
        assert ("1,000 rows are predicted; Cancel keeps them." in asked) == (state == JobState.RUNNING)
        assert Job.objects.exists(), "nothing changes by a GET"
        answer = admin.post(address, headers={"HX-Request": "true"})
        assert (answer.status_code, answer.headers["HX-Redirect"]) == (204, LIST)
        assert not Job.objects.exists()
        assert not folder.path.exists()
        assert "Removed: mails.csv by sentiment-v1, with its files." in admin.get(LIST).content.decode()
        entry = LogEntry.objects.get()
        assert (entry.user.username, entry.action_flag, entry.object_id) == ("ada", DELETION, str(running.pk))
        assert entry.get_change_message() == "In the admin. Removed, with its files."

    def test_without_a_script_a_page_asks(self, admin: Client, running: Job, folder: JobFolder) -> None:
        address = reverse("console:job-remove", args=[running.pk])
        assert "Remove the job" in admin.get(address).content.decode()
        answer = admin.post(address)
        assert (answer.status_code, answer["Location"]) == (302, LIST)

    def test_who_may_not_is_told_so(self, viewer: Client, operator: Client, running: Job, folder: JobFolder) -> None:
        address = reverse("console:job-remove", args=[running.pk])
        for client in (viewer, operator):
            assert client.post(address, headers={"HX-Request": "true"}).status_code == 403
            assert client.post(address).status_code == 403
            assert address not in page(client, running)
        assert folder.input.exists()
        Job.objects.update(owner=User.objects.get(username="olaf"))
        assert address in page(operator, running)
        assert operator.post(address, headers={"HX-Request": "true"}).status_code == 204
        assert not folder.path.exists()

    def test_a_page_that_looks_at_a_job_that_is_gone_leads_to_the_list(self, admin: Client, running: Job) -> None:
        address = reverse("admin:jobs_job_change", args=[running.pk])
        Job.objects.all().delete()
        answer = admin.get(address, headers={"HX-Request": "true"})
        assert (answer.status_code, answer.headers["HX-Redirect"]) == (204, LIST)
        assert f"There is no job {running.pk} any more" in admin.get(address, follow=True).content.decode()


class TestGoneMeanwhile:
    """In another tab, or as its time was over: the page with the buttons still stands."""

    @pytest.mark.parametrize("method", ["get", "post"])
    @pytest.mark.parametrize("command", ["cancel", "retry", "remove"])
    def test_a_dialog_leads_to_the_list(self, admin: Client, running: Job, command: str, method: str) -> None:
        address = reverse(f"console:job-{command}", args=[running.pk])
        Job.objects.all().delete()
        told = f"There is no job {running.pk} any more: it was removed, or its time was over."
        ask = getattr(admin, method)
        answer = ask(address, headers={"HX-Request": "true"})
        assert (answer.status_code, answer.headers.get("HX-Redirect")) == (204, LIST)
        assert told in admin.get(LIST).content.decode()
        answer = ask(address)  # without a script
        assert (answer.status_code, answer["Location"]) == (302, LIST)
        assert told in admin.get(LIST).content.decode()
        assert not LogEntry.objects.exists()

    @pytest.mark.parametrize(("command", "state"), [("cancel", JobState.RUNNING), ("retry", JobState.CANCELLED)])
    def test_a_job_that_goes_while_it_is_asked_for(
        self, admin: Client, running: Job, monkeypatch: pytest.MonkeyPatch, command: str, state: str
    ) -> None:
        Job.objects.update(state=state, rows_done=0, rows_failed=0, input_bytes=7)
        folder = JobFolder(running.pk)
        folder.make()
        folder.input.write_text("text\na\n")
        monkeypatch.setattr(dialogs, "may_look", lambda *_: Job.objects.all().delete() and True)
        answer = admin.post(reverse(f"console:job-{command}", args=[running.pk]), headers={"HX-Request": "true"})
        folder.remove()
        assert (answer.status_code, answer.headers.get("HX-Redirect")) == (204, LIST)
        assert not LogEntry.objects.exists()

    def test_who_may_not_see_the_list_is_led_to_the_first_page(self, running: Job) -> None:
        client = client_of(User.objects.create_user("sam", is_staff=True))
        Job.objects.all().delete()
        answer = client.get(reverse("console:job-remove", args=[running.pk]), headers={"HX-Request": "true"})
        assert (answer.status_code, answer.headers.get("HX-Redirect")) == (204, reverse("admin:index"))
