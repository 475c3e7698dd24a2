"""Jobs in the console: the list with its progress, a job's page, the dialog that cancels it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from modelhub.jobs.models import Job, JobState
from tests.console.conftest import MakeVersion

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
    for told in ("mails.csv by sentiment-v1", "25.0%", "1,000 of 4,000, 3 with an error", ">500<", "running"):
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
    assert "6.00 s left" in shown
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


class TestCancelling:
    def test_the_dialog_says_what_is_lost_and_does_it(self, admin: Client, running: Job) -> None:
        address = reverse("console:job-cancel", args=[running.pk])
        asked = admin.get(address, headers={"HX-Request": "true"}).content.decode()
        assert "1,000 rows are predicted; they are thrown away." in asked
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
