"""Jobs by the API: what is taken, who may see what, what is cancelled, removed and downloaded."""

# ruff: noqa: F811 (fixtures are imported by name)

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from modelhub.conf import Config
from modelhub.jobs import receiving
from modelhub.jobs.folders import jobs_dir
from modelhub.jobs.models import Job, JobState
from modelhub.jobs.running import Runner
from modelhub.registry.models import ModelVersion
from tests.api.conftest import As, MakeVersion
from tests.jobs.conftest import SIGNATURE, Model, answer_to, model  # noqa: F401

pytestmark = pytest.mark.django_db

DATA = b"text\none\ntwo\nthree\n"


@pytest.fixture(autouse=True)
def _no_folder_is_left() -> Iterator[None]:
    yield
    for job in Job.objects.all():
        job.delete()
    for left in jobs_dir().glob("*"):
        for file in left.iterdir():
            file.unlink()
        left.rmdir()


@pytest.fixture
def version(make_version: MakeVersion) -> ModelVersion:
    return make_version("m-v1", lineage="m", signature=SIGNATURE, status="loaded")


def ask(api: APIClient, data: bytes = DATA, name: str = "in.csv", **fields: Any) -> Any:
    return api.post("/api/jobs/", {"file": SimpleUploadedFile(name, data), "model": "m", **fields}, format="multipart")


def run_all() -> None:
    while Runner(threading.Event())._work_once():
        pass


def content_of(answer: Any) -> bytes:
    """What a client downloads."""
    return b"".join(answer.streaming_content)


def told(answer: Any) -> tuple[int, str, str]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["message"]


def test_a_file_becomes_a_job_and_a_result(as_: As, version: ModelVersion, model: Model) -> None:
    api = as_("operator")
    answer = ask(api)
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["Location"] == f"/api/jobs/{job['id']}/"
    assert (job["state"], job["progress"], job["result"], job["owner"]) == ("queued", None, None, "operator")
    assert api.get(answer.headers["Location"]).json() == job
    early = api.get(f"/api/jobs/{job['id']}/result")
    assert told(early)[:2] == (409, "state_forbids")
    run_all()
    job = api.get(f"/api/jobs/{job['id']}").json()
    assert (job["state"], job["progress"], job["rows_done"], job["rows_total"]) == ("succeeded", 1.0, 3, 3)
    assert job["model_id"] == "m-v1"
    result = api.get(job["result"])
    assert result.status_code == 200
    assert result["Content-Type"] == "text/csv"
    assert result["Content-Disposition"] == 'attachment; filename="in.predicted.csv"'
    lines = content_of(result).decode().splitlines()
    assert [line.split(",")[:2] for line in lines[1:]] == [
        [text, answer_to(text)["label"]] for text in ("one", "two", "three")
    ]


def test_formats_and_options(as_: As, version: ModelVersion, model: Model) -> None:
    written = io.BytesIO()
    pq.write_table(pa.table({"id": [1, 2], "body": ["a", "b"]}), written)
    api = as_("operator")
    answer = ask(
        api, written.getvalue(), "x.bin", format="parquet", output_format="jsonl", column="body", scores="none",
        prefix="my_", version="1.0.0",
    )  # fmt: skip
    assert answer.status_code == 202, answer.content
    run_all()
    result = api.get(f"/api/jobs/{answer.json()['id']}/result")
    rows = [json.loads(line) for line in content_of(result).splitlines()]
    wanted = answer_to("a")
    assert rows[0] == {"id": 1, "body": "a", "my_label": wanted["label"], "my_score": wanted["score"]}


def test_what_a_spreadsheet_would_run_is_guarded_unless_told_not_to(
    as_: As, version: ModelVersion, model: Model
) -> None:
    api = as_("operator")
    for fields, wanted in (({}, "'@SUM(1),"), ({"guard_formulas": "false"}, "@SUM(1),")):
        job = ask(api, b"text\n@SUM(1)\n", **fields).json()
        run_all()
        result = content_of(api.get(f"/api/jobs/{job['id']}/result")).decode()
        assert result.splitlines()[1].startswith(wanted)


@pytest.mark.parametrize(
    ("data", "name", "fields", "wanted", "sentence"),
    [
        (DATA, "in.csv", {"model": "none"}, (404, "model_not_found"), "No model and no lineage is named 'none'"),
        (DATA, "in.txt", {}, (400, "invalid_input"), "The name of the file does not tell it"),
        (DATA, "in.csv", {"colour": "red"}, (400, "invalid_input"), "colour is not known here"),
        (DATA, "in.csv", {"column": "nix"}, (400, "file_refused"), 'The file has no column "nix"'),
        (DATA, "in.csv", {"delimiter": '"'}, (400, "invalid_input"), "neither a quote"),
        (DATA, "in.csv", {"strict": "perhaps"}, (400, "invalid_input"), '"perhaps" is none of true, false'),
        (b"", "in.csv", {}, (400, "file_refused"), "The file is empty"),
        (b"a,a\n1,2\n", "in.csv", {}, (400, "file_refused"), 'Line 1 names the column "a" more than once'),
        (DATA, "in.parquet", {}, (400, "file_refused"), "The file is no Parquet file"),
    ],
)
def test_what_is_wrong_is_said_at_once_and_nothing_is_left(
    as_: As, version: ModelVersion, data: bytes, name: str, fields: Any, wanted: tuple[int, str], sentence: str
) -> None:
    answer = ask(as_("operator"), data, name, **fields)
    assert told(answer)[:2] == wanted
    assert sentence in told(answer)[2]
    assert not Job.objects.exists()
    assert not list(jobs_dir().glob("*"))


def test_json_is_no_form(as_: As, version: ModelVersion) -> None:
    answer = as_("operator").post("/api/jobs/", {"model": "m"}, format="json")
    assert told(answer)[:2] == (415, "unsupported_media_type")


def test_a_form_without_a_file(as_: As, version: ModelVersion) -> None:
    answer = as_("operator").post("/api/jobs/", {"model": "m"}, format="multipart")
    assert told(answer) == (400, "invalid_input", "file: No file was submitted.")


class TestSize:
    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        limited = Config(JOB_MAX_MB=1)
        monkeypatch.setattr(receiving, "config", lambda: limited)

    def test_a_body_that_is_announced_too_long_is_not_read(self, as_: As, version: ModelVersion) -> None:
        answer = ask(as_("operator"), b"text\n" + b"x\n" * (1 << 20) + b"y" * 10)
        assert told(answer)[:2] == (413, "file_too_large")
        assert not list(jobs_dir().glob("*"))

    def test_a_file_that_is_too_long_is_read_past(self, as_: As, version: ModelVersion) -> None:
        answer = ask(as_("operator"), b"text\n" + b"x\n" * ((1 << 19) + 10))
        assert told(answer)[:2] == (413, "file_too_large")
        assert "raise JOB_MAX_MB" in told(answer)[2]
        assert not list(jobs_dir().glob("*"))

    def test_a_disk_without_room_is_said(self, as_: As, version: ModelVersion, monkeypatch: pytest.MonkeyPatch) -> None:
        from modelhub.registry.uploads import staging

        monkeypatch.setattr(staging, "SPARE_BYTES", 1 << 60)
        answer = ask(as_("operator"))
        assert told(answer)[:2] == (507, "no_space")
        assert not list(jobs_dir().glob("*"))


class TestWho:
    def test_asking_needs_the_permission_to_predict(self, as_: As, version: ModelVersion) -> None:
        answer = ask(as_("viewer"))
        assert told(answer)[:2] == (403, "permission_denied")
        assert ask(as_("anonymous")).status_code == 401
        assert not list(jobs_dir().glob("*"))

    @pytest.fixture
    def job(self, as_: As, version: ModelVersion, model: Model) -> Any:
        job = ask(as_("operator")).json()
        run_all()
        return job

    def stranger(self, *permissions: str) -> APIClient:
        user = User.objects.create_user("sam")
        user.user_permissions.set(Permission.objects.filter(codename__in=["predict_modelversion", *permissions]))
        api = APIClient()
        api.force_authenticate(user)
        return api

    def test_others_do_not_know_of_it(self, job: Any) -> None:
        api = self.stranger()
        assert api.get("/api/jobs/").json() == []
        for method, address in (("get", ""), ("get", "/result"), ("post", "/cancel"), ("delete", "")):
            answer = getattr(api, method)(f"/api/jobs/{job['id']}{address}")
            assert told(answer)[:2] == (404, "not_found"), address

    def test_who_may_see_jobs_sees_no_result_and_ends_none(self, job: Any) -> None:
        api = self.stranger("view_job")
        assert [one["id"] for one in api.get("/api/jobs/").json()] == [job["id"]]
        for method, address in (("get", "/result"), ("post", "/cancel"), ("delete", "")):
            answer = getattr(api, method)(f"/api/jobs/{job['id']}{address}")
            assert told(answer)[:2] == (403, "permission_denied"), address

    def test_each_right_is_a_permission_of_its_own(self, job: Any) -> None:
        api = self.stranger("view_job", "read_results_job", "change_job", "delete_job")
        assert content_of(api.get(f"/api/jobs/{job['id']}/result"))
        assert api.post(f"/api/jobs/{job['id']}/cancel").status_code == 409
        assert api.delete(f"/api/jobs/{job['id']}").status_code == 204

    def test_a_browser_with_a_session_needs_the_csrf_token_and_the_permission(self, version: ModelVersion) -> None:
        viewer = User.objects.create_user("vera")
        browser = Client(enforce_csrf_checks=True)
        for user, with_token, wanted in (
            (viewer, True, 403),
            (User.objects.create_superuser("boss"), False, 403),
            (User.objects.get(username="boss"), True, 202),
        ):
            browser.force_login(user)
            browser.get("/api/jobs/", headers={"Accept": "text/html"})
            token = browser.cookies["csrftoken"].value if with_token and "csrftoken" in browser.cookies else ""
            if with_token and not token:
                browser.get("/admin/login/")
                token = browser.cookies["csrftoken"].value
            fields = {"file": SimpleUploadedFile("in.csv", DATA), "model": "m"}
            answer = browser.post("/api/jobs/", fields, headers={"X-CSRFToken": token})
            assert answer.status_code == wanted, answer.content
        assert len(list(jobs_dir().glob("*"))) == 1


def test_cancelling_and_removing_leave_entries(as_: As, version: ModelVersion) -> None:
    api = as_("operator")
    job = ask(api).json()
    cancelled = api.post(f"/api/jobs/{job['id']}/cancel")
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    again = api.post(f"/api/jobs/{job['id']}/cancel")
    assert told(again)[:2] == (409, "state_forbids")
    assert api.delete(f"/api/jobs/{job['id']}").status_code == 204
    assert told(api.get(f"/api/jobs/{job['id']}"))[:2] == (404, "not_found")
    assert not list(jobs_dir().glob("*"))
    entries = LogEntry.objects.filter(object_id=job["id"]).order_by("pk")
    assert [(entry.action_flag, entry.get_change_message()) for entry in entries] == [
        (1, "By the API. Asked for."),
        (2, "By the API. Cancelled."),
        (3, "By the API. Removed, with its files."),
    ]


class TestRetrying:
    @pytest.fixture
    def stopped(self, as_: As, version: ModelVersion, model: Model) -> Any:
        """Failed behind its first two rows."""
        data = b"text\none\ntwo\nrefuse me\nfour\n"
        job = ask(as_("operator"), data, strict="true").json()
        run_all()
        job = as_("operator").get(f"/api/jobs/{job['id']}/").json()
        assert (job["state"], job["rows_done"], job["error"]["code"]) == ("failed", 2, "row_refused")
        model.refused = ""
        return job

    def test_it_goes_on_behind_what_is_written(self, as_: As, stopped: Any, model: Model) -> None:
        api = as_("operator")
        model.asked.clear()
        answer = api.post(f"/api/jobs/{stopped['id']}/retry")
        assert answer.status_code == 202
        job = answer.json()
        assert (job["state"], job["rows_done"], job["error"], job["finished_at"]) == ("queued", 2, None, None)
        run_all()
        done = api.get(f"/api/jobs/{job['id']}/").json()
        assert (done["state"], done["rows_done"]) == ("succeeded", 4)
        assert sum(model.asked) == 2
        lines = content_of(api.get(done["result"])).decode().splitlines()
        assert [line.split(",")[0] for line in lines] == ["text", "one", "two", "refuse me", "four"]
        assert told(api.post(f"/api/jobs/{job['id']}/retry"))[:2] == (409, "state_forbids")
        entries = LogEntry.objects.filter(object_id=job["id"], action_flag=2)
        assert [one.get_change_message() for one in entries] == ["By the API. Retried, behind what was written."]

    def test_why_not_is_said_and_anew_is_asked_for(self, as_: As, stopped: Any, model: Model) -> None:
        api, address = as_("operator"), f"/api/jobs/{stopped['id']}/retry"
        (jobs_dir() / stopped["id"] / "input").write_bytes(b"text\nother\n")
        answer = api.post(address)
        assert told(answer)[:2] == (409, "job_cannot_go_on")
        assert "its file is not the one that was sent" in told(answer)[2]
        assert told(api.post(address, {"from_start": "yes"}, format="json"))[:2] == (400, "invalid_input")
        assert told(api.post(address, {"anew": True}, format="json"))[:2] == (400, "invalid_input")
        answer = api.post(address, {"from_start": True}, format="json")
        assert (answer.status_code, answer.json()["rows_done"]) == (202, 0)
        run_all()
        assert api.get(f"/api/jobs/{stopped['id']}/").json()["rows_done"] == 1
        entry = LogEntry.objects.filter(object_id=stopped["id"], action_flag=2).get()
        assert entry.get_change_message() == "By the API. Begun anew."

    def test_who_may(self, as_: As, stopped: Any) -> None:
        def of(name: str, *permissions: str) -> int:
            user = User.objects.create_user(name)
            user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
            api = APIClient()
            api.force_authenticate(user)
            return int(api.post(f"/api/jobs/{stopped['id']}/retry").status_code)

        assert of("a", "predict_modelversion") == 404, "it is another's"
        assert of("b", "predict_modelversion", "view_job") == 403
        assert of("c", "change_job", "view_job") == 403, "retrying is predicting"
        assert of("d", "predict_modelversion", "view_job", "change_job") == 202
        assert Job.objects.get().owner_name == "operator"


@pytest.mark.parametrize(
    ("asked", "wanted", "span"),
    [
        ("bytes=0-3", b"text", "bytes 0-3/"),
        ("bytes=5-9", b"label", "bytes 5-9/"),
        ("bytes=-1", b"\n", None),
        ("bytes=99999-", None, "bytes */"),
        ("bytes=0-1,3-4", "whole", None),
        ("lines=1", "whole", None),
    ],
)
def test_a_result_comes_in_ranges(
    as_: As,
    version: ModelVersion,
    model: Model,
    asked: str,
    wanted: Any,
    span: str | None,
) -> None:
    api = as_("operator")
    job = ask(api).json()
    run_all()
    whole = content_of(api.get(f"/api/jobs/{job['id']}/result"))
    answer = api.get(f"/api/jobs/{job['id']}/result", headers={"Range": asked})
    if wanted is None:
        assert answer.status_code == 416
    else:
        content = content_of(answer)
        assert answer.status_code == (200 if wanted == "whole" else 206)
        assert content == (whole if wanted == "whole" else wanted)
        assert answer.headers["Content-Length"] == str(len(content))
    if span:
        assert answer.headers["Content-Range"].startswith(span)


def test_the_list_is_narrowed_and_costs_the_same_for_many(as_: As, version: ModelVersion) -> None:
    api = as_("operator")
    owner = User.objects.get(username="operator")
    many = [Job(model_name="m", owner=owner, owner_name="operator", input_format="csv") for _ in range(30)]
    many[0].state, many[0].model_id = JobState.FAILED, "m-v1"

    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as found:
            api.get("/api/jobs/")
        return len(found)

    many[0].save()
    one = queries()
    Job.objects.bulk_create(many[1:])
    assert queries() == one
    assert len(api.get("/api/jobs/").json()) == 30
    assert [job["state"] for job in api.get("/api/jobs/?state=failed").json()] == ["failed"]
    assert len(api.get("/api/jobs/?model=m-v1").json()) == 1
    assert len(api.get("/api/jobs/?limit=7").json()) == 7
    assert api.get("/api/jobs/?nix=1").status_code == 400
    assert told(api.get("/api/jobs/none-such"))[0] == 404
