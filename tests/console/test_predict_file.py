"""Having a file predicted in the console: who may, what is refused and where that is told, what is left of it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.contrib.admin.models import ADDITION, LogEntry
from django.contrib.auth.models import Permission, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.files.uploadhandler import FileUploadHandler
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from modelhub.conf import Config
from modelhub.console.jobs import asking
from modelhub.jobs import receiving, submitting
from modelhub.jobs.folders import JobFolder, jobs_dir
from modelhub.jobs.models import Job
from modelhub.jobs.options import Options
from modelhub.registry.choices import ModelType
from modelhub.registry.models import Alias, Model, ModelVersion
from modelhub.registry.uploads import staging
from tests.console.conftest import MakeVersion, client_of
from tests.jobs.conftest import SIGNATURE

pytestmark = pytest.mark.django_db

PREDICT = reverse("console:predict-file")
CHECK = reverse("console:predict-file-check")
MODELS = reverse("console:predict-file-models")
VERSIONS = reverse("console:predict-file-versions")
LIST = reverse("admin:jobs_job_changelist")
DATA = b"text\none\ntwo\n"
TYPED = {
    "output_format": "parquet", "format": "csv", "delimiter": "\t", "header": "false", "column": "1\r\n2\r\n",
    "scores": "none", "prefix": "my_", "strict": "true", "guard_formulas": "false", "batch_size": "7",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_folder_is_left() -> Iterator[None]:
    yield
    for left in jobs_dir().glob("*"):
        for file in left.iterdir():
            file.unlink()
        left.rmdir()


@pytest.fixture
def version(make_version: MakeVersion) -> ModelVersion:
    return make_version("mail-v1", signature=SIGNATURE, status="loaded")


def send(client: Client, data: bytes | None = DATA, name: str = "in.csv", *, json: bool = False, **fields: Any) -> Any:
    form = {"model": "mail", **fields}
    if data is not None:
        form["file"] = SimpleUploadedFile(name, data)
    return client.post(PREDICT, form, headers={"Accept": "application/json"} if json else {})


def errors(answer: Any) -> dict[str, list[str]]:
    assert answer.status_code == 422, answer.content
    assert not Job.objects.exists()
    assert not list(jobs_dir().glob("*"))
    found: dict[str, list[str]] = answer.json()["errors"]
    return found


class TestAsking:
    def test_a_file_becomes_a_job_and_leads_to_it(self, operator: Client, version: ModelVersion) -> None:
        answer = send(operator)
        job = Job.objects.get()
        assert answer.status_code == 302
        assert answer["Location"] == reverse("admin:jobs_job_change", args=[job.pk])
        assert operator.get(answer["Location"]).status_code == 200
        assert (job.state, job.model_name, job.owner_name, job.input_name) == ("queued", "mail", "olaf", "in.csv")
        assert (job.input_format, job.output_format, job.options) == ("csv", "csv", Options().to_json())
        assert (jobs_dir() / str(job.pk) / "input").read_bytes() == DATA
        entry = LogEntry.objects.get()
        assert (entry.action_flag, entry.object_id) == (ADDITION, str(job.pk))
        assert entry.get_change_message() == "In the admin. Asked for."

    def test_the_pages_script_is_told_in_json(self, operator: Client, version: ModelVersion) -> None:
        answer = send(operator, json=True)
        assert answer.status_code == 201
        assert answer.json() == {"url": reverse("admin:jobs_job_change", args=[Job.objects.get().pk])}

    def test_every_option_of_the_api_is_taken(self, operator: Client, version: ModelVersion) -> None:
        answer = send(operator, b"1\tone\n2\ttwo\n", "in.txt", version=version.version, **{**TYPED, "column": "2\r\n"})
        assert answer.status_code == 302, answer.content.decode()
        job = Job.objects.get()
        assert (job.version_asked, job.input_format, job.output_format) == (version.version, "csv", "parquet")
        wanted = Options(("2",), "\t", False, "none", "my_", True, 7, False)
        assert Options.from_json(job.options) == wanted

    def test_parquet(self, operator: Client, version: ModelVersion) -> None:
        written = io.BytesIO()
        pq.write_table(pa.table({"text": ["a", "b"]}), written)
        assert send(operator, written.getvalue(), "in.parquet", output_format="jsonl").status_code == 302
        assert (Job.objects.get().input_format, Job.objects.get().output_format) == ("parquet", "jsonl")

    def test_a_queued_job_keeps_its_file_whatever_goes_wrong_afterwards(
        self, operator: Client, version: ModelVersion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away(*_: Any) -> None:
            raise OperationalError("the server closed the connection")

        monkeypatch.setattr(asking, "record_of_job", away)
        with pytest.raises(OperationalError):
            send(operator)
        job = Job.objects.get()
        assert job.state == "queued"
        assert JobFolder(job.pk).input.read_bytes() == DATA

    def test_nothing_but_the_jobs_own_folder_receives_the_file(
        self, operator: Client, version: ModelVersion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        used: list[str] = []
        receive_data_chunk = receiving.JobReceiver.receive_data_chunk

        def noted(handler: Any, raw_data: bytes, start: int) -> None:
            used.append(f"{start}+{len(raw_data)}")
            receive_data_chunk(handler, raw_data, start)

        monkeypatch.setattr(receiving.JobReceiver, "receive_data_chunk", noted)
        monkeypatch.setattr(FileUploadHandler, "file_complete", lambda *_: pytest.fail("another handler was asked"))
        data = b"text\n" + b"x\n" * (3 << 19)
        assert send(operator, data).status_code == 302
        assert len(used) == 4, "it comes in pieces of 1 MiB"
        assert Job.objects.get().input_bytes == len(data)


class TestWho:
    def test_a_viewer_sees_neither_button_nor_page(self, viewer: Client, version: ModelVersion) -> None:
        Job.objects.create(model_name="mail", owner_name="ada")
        model = reverse("admin:registry_modelversion_change", args=[version.pk])
        for page in (LIST, model, reverse("console:search") + "?q=predict"):
            assert PREDICT not in viewer.get(page).content.decode(), page
        for address in (PREDICT, CHECK, MODELS, VERSIONS):
            assert viewer.get(address).status_code == 403, address
        assert send(viewer).status_code == 403
        assert not Job.objects.exclude(owner_name="ada").exists()
        assert not list(jobs_dir().glob("*"))

    def test_who_may_predict_is_led_there(self, operator: Client, version: ModelVersion) -> None:
        assert f'href="{PREDICT}"' in operator.get(LIST).content.decode(), "the empty list"
        Job.objects.create(model_name="mail", owner_name="ada")
        assert f'href="{PREDICT}"' in operator.get(LIST).content.decode()
        assert f'href="{PREDICT}"' in operator.get(f"{LIST}?q=nothing-like-it").content.decode()
        assert PREDICT in operator.get(reverse("console:search") + "?q=predict").content.decode()
        page = operator.get(reverse("admin:registry_modelversion_change", args=[version.pk])).content.decode()
        assert f'href="{PREDICT}?model=mail-v1"' in page
        assert 'value="mail-v1"' in operator.get(f"{PREDICT}?model=mail-v1").content.decode()

    def test_a_stranger_is_led_to_the_login(self, version: ModelVersion) -> None:
        assert reverse("admin:login") in send(Client())["Location"]
        assert not list(jobs_dir().glob("*"))

    def test_a_forged_request_leaves_nothing(self, version: ModelVersion) -> None:
        client = Client(enforce_csrf_checks=True)
        client.force_login(User.objects.create_superuser("boss"))
        assert send(client).status_code == 403
        assert not list(jobs_dir().glob("*"))
        client.get(PREDICT)
        token = client.cookies["csrftoken"].value
        assert send(client, csrfmiddlewaretoken=token).status_code == 302

    def test_whose_it_is_sees_his_own_page_only(self, version: ModelVersion) -> None:
        sam = User.objects.create_user("sam", is_staff=True)
        sam.user_permissions.add(Permission.objects.get(codename="predict_modelversion"))
        client = client_of(sam)
        assert f'href="{reverse("admin:index")}"' in client.get(PREDICT).content.decode()
        own = send(client)["Location"]
        assert client.get(own).status_code == 200
        other = Job.objects.create(model_name="mail", owner_name="ada")
        assert client.get(reverse("admin:jobs_job_change", args=[other.pk])).status_code == 403
        assert client.get(LIST).status_code == 403


class TestRefusals:
    @pytest.mark.parametrize(
        ("data", "name", "fields", "place", "sentence"),
        [
            (None, "", {}, "file", "No file was submitted."),
            (b"", "in.csv", {}, "file", "The file is empty"),
            (DATA, "in.parquet", {}, "file", "The file is no Parquet file"),
            (b"a,a\n1,2\n", "in.csv", {}, "file", 'Line 1 names the column "a" more than once'),
            (DATA, "in.txt", {}, "format", "The name of the file does not tell it; give one of csv, jsonl, parquet."),
            (DATA, "in.csv", {"format": "xlsx"}, "format", '"xlsx" is none of csv, jsonl, parquet.'),
            (DATA, "in.csv", {"output_format": "xlsx"}, "output_format", '"xlsx" is none of'),
            (DATA, "in.csv", {"model": ""}, "model", "This field may not be blank."),
            (DATA, "in.csv", {"model": "none"}, "model", "No model and no lineage is named 'none'"),
            (DATA, "in.csv", {"model": "no\0ne"}, "model", "Null characters are not allowed."),
            (DATA, "in.csv", {"model": "none", "version": "live"}, "model", "No model and no lineage is named 'none'"),
            (DATA, "in.csv", {"version": "nix"}, "version", "mail has neither a version nor an alias 'nix'"),
            (DATA, "in.csv", {"column": "text\nnix"}, "column", 'The file has no column "nix"; it has "text".'),
            (DATA, "in.csv", {"column": "x" * 10 + "\0"}, "column", "Null characters are not allowed."),
            (DATA, "in.csv", {"delimiter": '"'}, "delimiter", "neither a quote nor the end of a line"),
            (DATA, "in.csv", {"header": "perhaps"}, "header", '"perhaps" is none of true, false'),
            (DATA, "in.csv", {"scores": "all"}, "scores", '"all" is none of'),
            (DATA, "in.csv", {"prefix": "x" * 65}, "prefix", "no more than 64 characters"),
            (DATA, "in.csv", {"strict": "yes"}, "strict", '"yes" is none of'),
            (DATA, "in.csv", {"guard_formulas": "1"}, "guard_formulas", '"1" is none of'),
            (DATA, "in.csv", {"batch_size": "0"}, "batch_size", "greater than or equal to 1"),
            (DATA, "in.csv", {"batch_size": "many"}, "batch_size", "A valid integer is required."),
        ],
    )
    def test_it_is_told_at_the_field_and_nothing_is_left(
        self,
        operator: Client,
        version: ModelVersion,
        data: bytes | None,
        name: str,
        fields: dict[str, str],
        place: str,
        sentence: str,
    ) -> None:
        found = errors(send(operator, data, name, json=True, **fields))
        assert list(found) == [place]
        assert sentence in found[place][0]
        page = send(operator, data, name, **fields)
        assert page.status_code == 422
        shown = page.content.decode()
        at_field = shown.split(f'id="error-{place}"', 1)[1].split("</span>")[0]
        assert sentence.split("'")[0].split('"')[0] in at_field
        assert ("choose it again" in shown) == (place != "file")

    def test_nothing_that_was_typed_is_lost(self, operator: Client, version: ModelVersion) -> None:
        answer = send(operator, model="<none>", version="live", **TYPED)
        shown = answer.content.decode()
        assert answer.context["form"].data.dict() == {"model": "<none>", "version": "live", **TYPED}
        for told in ('value="&lt;none&gt;"', 'value="live"', 'value="my_"', ">\n1\r\n2\r\n</textarea>", 'value="7"'):
            assert told in shown, told
        for chosen in ("parquet", "csv", "\t", "none"):
            assert f'<option value="{chosen}" selected>' in shown, chosen
        assert shown.count('<option value="true" selected>') == 1
        assert shown.count('<option value="false" selected>') == 2
        assert "<details open" not in shown

    def test_what_is_wrong_under_more_opens_it(self, operator: Client, version: ModelVersion) -> None:
        assert 'mh-fold" open' in send(operator, batch_size="0").content.decode()
        assert 'mh-fold" open' not in operator.get(PREDICT).content.decode()

    def test_who_has_too_many_under_way_is_told_above(
        self, operator: Client, version: ModelVersion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(submitting, "config", lambda: Config(JOB_MAX_OPEN=1))
        Job.objects.create(model_name="mail", owner=User.objects.get(username="olaf"), owner_name="olaf")
        answer = send(operator, json=True)
        assert answer.status_code == 422
        assert "1 jobs of olaf are queued or running already" in answer.json()["errors"][""][0]
        assert "1 jobs of olaf" in send(operator).content.decode()
        assert "1 jobs of olaf" in operator.get(f"{CHECK}?model=mail&file=in.csv").json()["errors"][""][0]
        assert not list(jobs_dir().glob("*"))

    def test_a_body_that_breaks_off(self, operator: Client, version: ModelVersion) -> None:
        body = (
            b'--XX\r\nContent-Disposition: form-data; name="model"\r\n\r\nmail\r\n--XX\r\nContent-Disposition: '
            b'form-data; name="file"; filename="in.csv"\r\n\r\ntext\none'
        )
        answer = operator.post(
            PREDICT,
            data=body,
            content_type="multipart/form-data; boundary=XX",
            headers={"Accept": "application/json"},
        )
        assert errors(answer) == {"file": ["The upload broke off; send it again."]}

    def test_what_goes_wrong_before_there_is_a_job_leaves_nothing(
        self, operator: Client, version: ModelVersion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away(*_: Any) -> None:
            raise OperationalError("the server closed the connection")

        monkeypatch.setattr(submitting, "require_place", away)
        with pytest.raises(OperationalError):
            send(operator)
        assert not Job.objects.exists()
        assert not list(jobs_dir().glob("*"))

    def test_a_folder_that_cannot_be_made(
        self, operator: Client, version: ModelVersion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused(_: JobFolder) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(JobFolder, "make", refused)
        told = errors(send(operator, json=True))["file"][0]
        assert told == "It could not be written: Permission denied; look at the disk of the state folder."


class TestSize:
    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        limited = Config(JOB_MAX_MB=1)
        monkeypatch.setattr(receiving, "config", lambda: limited)

    @pytest.mark.parametrize("rows", [(1 << 19) + 10, 1 << 20], ids=["as it comes", "as it is announced"])
    def test_what_is_too_long_is_read_past(self, operator: Client, version: ModelVersion, rows: int) -> None:
        data = b"text\n" + b"x\n" * rows + b"y" * 10
        found = errors(send(operator, data, json=True))
        assert "raise JOB_MAX_MB" in found["file"][0]
        shown = send(operator, data, prefix="my_").content.decode()
        assert "raise JOB_MAX_MB" in shown
        assert 'value="my_"' in shown, "what was typed is there"

    def test_a_disk_without_room_is_said(
        self, operator: Client, version: ModelVersion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(staging, "SPARE_BYTES", 1 << 60)
        assert "make room on that disk" in errors(send(operator, json=True))["file"][0]

    def test_a_disk_that_fills_up_meanwhile_is_said(
        self, operator: Client, version: ModelVersion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(staging.Room, "take", full)
        told = errors(send(operator, json=True))["file"][0]
        assert told == "The disk of the state folder is full; make room there, then send it again."


class TestBeforeSending:
    def test_all_but_the_content_is_judged(self, operator: Client, version: ModelVersion) -> None:
        for query, place in (
            ("model=mail&file=in.csv", None),
            ("model=mail&file=in.txt", "format"),
            ("model=mail&file=in.txt&format=csv", None),
            ("model=mail&file=in.csv&batch_size=0", "batch_size"),
            ("model=mail&file=in.csv&column=a%0D%0Ab", None),
            ("model=mail-v1&file=in.csv", None),
            ("model=none&file=in.csv", "model"),
            ("model=&file=in.csv", "model"),
            ("model=mail&version=nix&file=in.csv", "version"),
            ("model=mail-v1&version=nix&file=in.csv", "version"),
        ):
            found = operator.get(f"{CHECK}?{query}").json()["errors"]
            assert list(found) == ([place] if place else []), query

    @pytest.mark.parametrize("file", ["", "&file=", "&file=.", "&file=..", "&file=mails/", "&file=mails.csv/.."])
    def test_without_a_name_all_else_is_judged(
        self, operator: Client, version: ModelVersion, caplog: pytest.LogCaptureFixture, file: str
    ) -> None:
        for query, place in (
            ("model=mail", "format"),
            ("model=mail&format=csv", None),
            ("model=mail&format=xlsx", "format"),
            ("model=mail&format=csv&batch_size=0", "batch_size"),
            ("model=none&format=csv", "model"),
        ):
            answer = operator.get(f"{CHECK}?{query}{file}")
            assert answer.status_code == 200, answer.content
            assert list(answer.json()["errors"]) == ([place] if place else []), query
        assert not [record for record in caplog.records if record.name.startswith("django.security")]


class TestNames:
    def test_lineages_and_models_that_match(self, operator: Client, make_version: MakeVersion) -> None:
        for name in ("mail-v1", "spam-of-mail-v1", "<odd>"):
            make_version(name, lineage=name.removesuffix("-v1"))
        shown = operator.get(f"{MODELS}?model=mail").content.decode()
        values = [line.split('"')[1] for line in shown.split("<option ")[1:]]
        assert values == ["mail", "spam-of-mail", "mail-v1", "spam-of-mail-v1"]
        assert "&lt;odd&gt;" in operator.get(MODELS).content.decode()
        assert not operator.get(f"{MODELS}?model=nothing-like-it").content.strip()

    def test_versions_and_aliases_of_the_lineage(self, operator: Client, make_version: MakeVersion) -> None:
        first = make_version("mail-v1", version="1.0")
        make_version("mail-v2", version="2.0")
        make_version("spam-v3", version="3.0", lineage="spam")
        Alias.objects.create(lineage=first.lineage, name="live", version=first)
        shown = operator.get(f"{VERSIONS}?model=mail").content.decode()
        assert [line.split('"')[1] for line in shown.split("<option ")[1:]] == ["live", "2.0", "1.0"]
        shown = operator.get(f"{VERSIONS}?model=mail&version=1").content.decode()
        assert [line.split('"')[1] for line in shown.split("<option ")[1:]] == ["1.0"]

    def test_many_models_cost_what_one_costs(self, operator: Client, make_version: MakeVersion) -> None:
        def cost(address: str) -> tuple[int, int]:
            with CaptureQueriesContext(connection) as found:
                answer = operator.get(address)
            assert answer.status_code == 200
            return len(found), len(answer.content)

        make_version("mail-v1")
        addresses = (PREDICT, MODELS, f"{VERSIONS}?model=mail")
        for address in addresses:
            operator.get(address)
        one = {address: cost(address) for address in addresses}
        lineages = Model.objects.bulk_create(Model(name=f"m{number}", type=ModelType.TOPIC) for number in range(300))
        ModelVersion.objects.bulk_create(
            ModelVersion(lineage=lineages[number], model_id=f"m{number}-v1", version="1", path=f"topic/m{number}-v1")
            for number in range(300)
        )
        many = {address: cost(address) for address in addresses}
        assert {address: queries for address, (queries, _) in many.items()} == {
            address: queries for address, (queries, _) in one.items()
        }
        assert many[PREDICT][1] - one[PREDICT][1] < 100, "the page has no list of all models"
        assert operator.get(MODELS).content.decode().count("<option ") == 24


def test_the_same_form_makes_the_same_job_by_the_api(operator: Client, version: ModelVersion) -> None:
    asked = {**TYPED, "column": "2"}
    assert send(operator, b"1\tone\n", "x", **asked).status_code == 302
    form = {"file": SimpleUploadedFile("x", b"1\tone\n"), "model": "mail", **asked}
    assert operator.post("/api/jobs/", form).status_code == 202
    here, there = Job.objects.values(
        *("state", "model_name", "owner", "input_name", "input_format", "input_digest", "output_format", "options")
    )
    assert here == there
