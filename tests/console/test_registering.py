"""Registering by hand: who may, what is checked before anything lands in the store, what is left behind by failures."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.admin.models import ADDITION, CHANGE, LogEntry
from django.contrib.auth.models import Permission, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import OperationalError, connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from modelhub.conf import config
from modelhub.console.registering import describing as registering_describing
from modelhub.console.registering import reviewing
from modelhub.console.registering.forms import DescribeForm, MetadataForm
from modelhub.console.registering.purging import purge_uploads
from modelhub.console.registering.refusals import refusal_of
from modelhub.lifecycle.models import ACTIVE, Operation, OperationKind, OperationStatus
from modelhub.registry import describing
from modelhub.registry.choices import DesiredState, Status
from modelhub.registry.discovery import discover
from modelhub.registry.models import DiscoveryRun, ModelVersion
from modelhub.registry.uploads.staging import create, uploads_dir
from modelhub.telemetry.maintenance import PURGES
from tests.console.conftest import client_of

pytestmark = pytest.mark.django_db
REGISTER = reverse("console:register")


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store, and a state folder without uploads."""
    for name, setting in (("store", "MODELS_DIR"), ("state", "MODELHUB_STATE_DIR")):
        (tmp_path / name).mkdir(mode=0o700)
        monkeypatch.setattr(config(), setting, (tmp_path / name).resolve())
    return (tmp_path / "store").resolve()


def zipped(files: dict[str, bytes], name: str = "spam-v1.zip") -> SimpleUploadedFile:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return SimpleUploadedFile(name, packed.getvalue())


def model(**metadata: Any) -> SimpleUploadedFile:
    return zipped({"model.skops": b"skops", "metadata.json": json.dumps({"lineage": "spam", **metadata}).encode()})


def send(client: Client, *files: SimpleUploadedFile, json_: bool = False, **fields: Any) -> Any:
    form = {"type": "spam", "model_id": "spam-v1", "files": list(files), **fields}
    headers = {"Accept": "application/json"} if json_ else {}
    return client.post(REGISTER, form, headers=headers)


def left_behind(store: Path) -> list[str]:
    """Uploads and files of the store."""
    uploads = [path.name for path in uploads_dir().iterdir()] if uploads_dir().exists() else []
    return uploads + [str(path.relative_to(store)) for path in store.rglob("*") if path.is_file()]


class TestUpload:
    def test_it_is_looked_at_confirmed_and_registered(self, admin: Client, store: Path) -> None:
        answer = send(admin, model(description="Finds spam."))
        assert answer.status_code == 302
        page = admin.get(answer["Location"])
        assert b"scikit-learn, skops" in page.content
        assert b"Finds spam." in page.content
        assert not ModelVersion.objects.exists()
        assert not list(store.iterdir())
        confirmed = admin.post(answer["Location"] + "confirm/")
        version = ModelVersion.objects.get()
        assert confirmed["Location"] == reverse("admin:registry_modelversion_change", args=[version.pk])
        assert sorted(left_behind(store)) == ["spam/spam-v1/metadata.json", "spam/spam-v1/model.skops"]
        entry = LogEntry.objects.get()
        assert (entry.action_flag, entry.object_id) == (ADDITION, str(version.pk))
        assert version.digest in entry.get_change_message()
        assert DiscoveryRun.objects.get().actor == "ada"
        assert admin.get(answer["Location"]).status_code == 404

    def test_a_program_is_told_in_json(self, admin: Client) -> None:
        answer = send(admin, model(), json_=True)
        assert answer.status_code == 201
        assert admin.get(answer.json()["url"]).status_code == 200

    def test_files_of_a_folder_keep_their_places(self, admin: Client) -> None:
        files = [SimpleUploadedFile(name, b"x") for name in ("saved_model.pb", "variables.index")]
        paths = json.dumps(["m/saved_model.pb", "m/variables/variables.index"])
        answer = send(admin, *files, paths=paths)
        page = admin.get(answer["Location"]).content.decode()
        assert "variables/variables.index" in page
        assert "can run code" in page
        admin.post(answer["Location"] + "confirm/")
        assert ModelVersion.objects.get().artifact_format == "saved-model"

    def test_fields_count_before_the_uploads_metadata(self, admin: Client) -> None:
        answer = send(admin, model(version="1.0"), version="2.0", labels="ham\nspam", sample_input='["buy"]')
        admin.post(answer["Location"] + "confirm/")
        version = ModelVersion.objects.get()
        assert version.version == "2.0"
        assert version.metadata == {
            "lineage": "spam",
            "version": "2.0",
            "labels": ["ham", "spam"],
            "sample_input": ["buy"],
        }

    @pytest.mark.parametrize(
        ("files", "fields", "place"),
        [
            ([], {}, "files"),
            ([zipped({"../x": b"y"})], {}, "files"),
            ([SimpleUploadedFile("a.tar.gz", b"x")], {}, "files"),
            ([SimpleUploadedFile("a", b"x")], {"paths": '["/etc/a"]'}, "files"),
            ([SimpleUploadedFile("a", b"x")], {"paths": "nonsense"}, "files"),
            ([model()], {"type": ""}, "type"),
            ([model()], {"model_id": "../x"}, "model_id"),
            ([model()], {"model_id": "health"}, "model_id"),
            ([model()], {"sample_input": "{bad"}, "sample_input"),
            ([zipped({"model.skops": b"x", "metadata.json": b"[]"})], {"name": "x"}, "files"),
            ([zipped({"model.skops": b"x", "metadata.json/x": b"{}"})], {"name": "x"}, "files"),
            ([zipped({"model.skops": b"x", "metadata.json": b" " * (5 << 20)})], {"name": "x"}, "files"),
        ],
        ids=["none", "up", "tar", "absolute", "paths", "type", "id", "reserved", "json", "metadata", "folder", "long"],
    )
    def test_what_is_refused_is_told_at_its_place_and_leaves_nothing(
        self, admin: Client, store: Path, files: list[SimpleUploadedFile], fields: dict[str, str], place: str
    ) -> None:
        for file in files:
            file.seek(0)
        answer = send(admin, *files, json_=True, **fields)
        assert answer.status_code == 422
        assert list(answer.json()["errors"]) == [place]
        assert left_behind(store) == []

    def test_without_a_script_the_page_tells_the_same(self, admin: Client, store: Path) -> None:
        answer = send(admin, zipped({"../x": b"y"}))
        assert answer.status_code == 422
        assert b"empty part" in answer.content
        assert left_behind(store) == []

    def test_a_name_that_is_taken(self, admin: Client, store: Path) -> None:
        (store / "spam/spam-v1").mkdir(parents=True)
        answer = send(admin, model(), json_=True)
        assert "already" in answer.json()["errors"]["model_id"][0]
        query = {"type": "spam", "model_id": "spam-v1"}
        assert "already" in admin.get(reverse("console:register-name"), query).json()["errors"]["model_id"][0]
        query = {"type": "", "model_id": "spam-v2"}
        assert list(admin.get(reverse("console:register-name"), query).json()["errors"]) == ["type"]
        query = {"type": "spam", "model_id": "spam-v2"}
        assert admin.get(reverse("console:register-name"), query).json() == {"errors": {}}

    def test_an_upload_that_is_too_long_is_not_read(
        self, admin: Client, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(config(), "UPLOAD_MAX_MB", 1)
        answer = send(admin, SimpleUploadedFile("a.zip", bytes(3 << 20)), json_=True)
        assert answer.status_code == 422
        assert "UPLOAD_MAX_MB" in answer.json()["errors"][""][0]
        assert left_behind(store) == []

    def test_a_disk_that_fills_up_meanwhile(self, admin: Client, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        free = iter([1 << 50])  # when it begins; nothing later
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=next(free, 0)))
        answer = send(admin, SimpleUploadedFile("a.zip", bytes(6 << 20)), json_=True)
        assert answer.status_code == 422
        assert "filled up meanwhile" in answer.json()["errors"]["files"][0]
        assert left_behind(store) == []

    def test_one_person_has_three_open_and_finds_them(self, admin: Client, store: Path) -> None:
        waiting = [send(admin, model(), model_id=f"spam-v{number}")["Location"] for number in (1, 2, 3)]
        answer = send(admin, model(), model_id="spam-v4", json_=True)
        assert answer.status_code == 422
        assert "3 uploads of yours are open" in answer.json()["errors"][""][0]
        page = admin.get(REGISTER).content.decode()
        assert all(address in page for address in waiting)
        assert "spam/spam-v2</a>" in page
        other = client_of(User.objects.create_superuser("eve", password="x"))
        assert waiting[0] not in other.get(REGISTER).content.decode()
        admin.post(waiting[0] + "cancel/")
        assert send(admin, model(), model_id="spam-v4", json_=True).status_code == 201

    def test_a_body_that_broke_off_leaves_nothing(self, admin: Client, store: Path) -> None:
        boundary = "XX"
        body = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="a.zip"\r\n'
            "Content-Type: application/zip\r\n\r\nPK half of a z"
        ).encode()
        answer = admin.post(
            REGISTER,
            data=body,
            content_type=f"multipart/form-data; boundary={boundary}",
            headers={"Accept": "application/json"},
        )
        assert answer.status_code == 422
        assert "broke off" in answer.json()["errors"]["files"][0]
        assert left_behind(store) == []

    def test_a_forged_form_is_refused_and_leaves_nothing(self, admin: Client, store: Path) -> None:
        strict = Client(enforce_csrf_checks=True)
        strict.cookies = admin.cookies
        assert send(strict, model()).status_code == 403
        assert left_behind(store) == []

    def test_another_page_writes_no_file(self, client: Client, db: None) -> None:
        """Nobody has to be known to send files to the login."""
        request = RequestFactory().post("/admin/login/", {"file": SimpleUploadedFile("a", bytes(3 << 20)), "x": "y"})
        assert (dict(request.FILES), request.POST["x"]) == ({}, "y")


class TestReview:
    @pytest.fixture
    def review(self, admin: Client) -> str:
        return send(admin, model(version="1"))["Location"]

    def test_what_cannot_be_registered_is_corrected_without_sending_again(
        self, admin: Client, store: Path, review: str
    ) -> None:
        (store / "spam/spam-v0").mkdir(parents=True)
        (store / "spam/spam-v0/model.skops").write_bytes(b"x")
        (store / "spam/spam-v0/metadata.json").write_text('{"lineage": "spam", "version": "1"}')
        discover(actor="test")
        refused = admin.post(review + "confirm/", follow=True)
        assert b"Version 1 of the lineage spam is spam-v0 already" in refused.content
        assert not (store / "spam/spam-v1").exists()
        form = {"type": "spam", "model_id": "spam-v2", "lineage": "spam", "version": "2"}
        corrected = admin.post(review, form, follow=True)
        assert b"It cannot be registered as it is" not in corrected.content
        admin.post(review + "confirm/")
        assert set(ModelVersion.objects.values_list("model_id", "version")) == {("spam-v0", "1"), ("spam-v2", "2")}

    def test_a_bad_correction_is_told_at_its_field(self, admin: Client, review: str) -> None:
        answer = admin.post(review, {"type": "spam", "model_id": "a/b", "lineage": "spam", "version": "1"})
        assert answer.status_code == 422
        assert "model_id" in answer.context["errors"]
        answer = admin.post(review, {"type": "spam", "model_id": "spam-v1", "lineage": "spam", "version": "not so"})
        assert b"made of letters" in admin.get(review).content

    def test_a_disk_that_fails_is_told(self, admin: Client, review: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(reviewing, "apply_fields", fail)
        answer = admin.post(review, {"type": "spam", "model_id": "spam-v1", "name": "x"})
        assert answer.status_code == 422
        assert "No space left" in answer.context["errors"][""][0]

    def test_one_that_is_still_received_is_none(self, admin: Client) -> None:
        upload = create(User.objects.get().pk)
        assert admin.get(reverse("console:register-review", args=[upload.token])).status_code == 404

    def test_it_is_thrown_away(self, admin: Client, store: Path, review: str) -> None:
        assert admin.post(review + "cancel/").status_code == 302
        assert left_behind(store) == []
        assert admin.get(review).status_code == 404

    def test_it_is_nobody_elses(self, review: str) -> None:
        other = client_of(User.objects.create_superuser("eve", password="x"))
        for address, method in (
            (review, other.get),
            (review + "confirm/", other.post),
            (review + "cancel/", other.post),
        ):
            assert method(address).status_code == 404
        assert left_behind(Path(config().MODELS_DIR))

    def test_acting_needs_a_post(self, admin: Client, review: str) -> None:
        assert admin.get(review + "confirm/").status_code == 405
        assert admin.get(review + "cancel/").status_code == 405

    def test_what_nobody_confirms_goes_with_the_maintenance(
        self, review: str, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert purge_uploads in PURGES
        step = purge_uploads(timezone.now())
        assert step() is None
        monkeypatch.setattr(config(), "UPLOAD_KEPT_MINUTES", -1)
        assert step() == 1
        assert step() is None
        assert left_behind(store) == []


class TestRights:
    ADDRESSES = ("register", "register-name")

    def test_viewers_and_operators_may_not(self, viewer: Client, operator: Client, store: Path) -> None:
        for client in (viewer, operator):
            for name in self.ADDRESSES:
                assert client.get(reverse(f"console:{name}")).status_code == 403
            assert send(client, model()).status_code == 403
            token = "0" * 32
            assert client.get(reverse("console:register-review", args=[token])).status_code == 403
            assert client.post(reverse("console:register-confirm", args=[token])).status_code == 403
            assert client.post(reverse("console:describe", args=["spam/x"])).status_code == 403
        assert left_behind(store) == []

    def test_both_permissions_are_needed(self, store: Path) -> None:
        user = User.objects.create_user("rita", is_staff=True)
        user.user_permissions.add(Permission.objects.get(codename="add_modelversion"))
        assert send(client_of(user), model()).status_code == 403
        user.user_permissions.add(Permission.objects.get(codename="discover_modelversion"))
        assert send(client_of(User.objects.get(pk=user.pk)), model()).status_code == 302

    def test_strangers_are_sent_to_the_login_unread(self, client: Client, store: Path) -> None:
        assert "/login/" in send(client, model())["Location"]
        assert left_behind(store) == []

    def test_buttons_are_for_those_who_may(self, admin: Client, viewer: Client) -> None:
        DiscoveryRun.objects.create(actor="ada", finished_at=timezone.now())
        user = User.objects.get(username="vera")
        user.user_permissions.add(Permission.objects.get(codename="view_discoveryrun"))
        address = reverse("admin:registry_discoveryrun_changelist")
        assert REGISTER in admin.get(address).content.decode()
        assert REGISTER not in viewer.get(address).content.decode()


class TestDescribing:
    @pytest.fixture
    def version(self, store: Path) -> ModelVersion:
        (store / "spam/spam-v1").mkdir(parents=True)
        (store / "spam/spam-v1/model.skops").write_bytes(b"x")
        (store / "spam/spam-v1/metadata.json").write_text(
            '{"lineage": "spam", "version": "1", "labels": ["ham"],\r\n "own": 7}'
        )
        discover(actor="test")
        return ModelVersion.objects.get()

    def address(self, path: str = "spam/spam-v1") -> str:
        return reverse("console:describe", args=[path])

    def form(self, client: Client, **changes: str) -> dict[str, str]:
        """As the browser sends the page that it got, with these changes."""
        form = client.get(self.address()).context["form"]
        sent = {name: str(form[name].value() or "").replace("\r\n", "\n").replace("\n", "\r\n") for name in form.fields}
        return {**sent, **changes}

    def test_a_field_is_written_and_the_rest_stays(self, admin: Client, store: Path, version: ModelVersion) -> None:
        before = (store / "spam/spam-v1/metadata.json").read_bytes().decode()
        answer = admin.post(self.address(), self.form(admin, version="1.1", labels="ham\r\nspam"))
        assert answer["Location"] == reverse("admin:registry_modelversion_change", args=[version.pk])
        written = json.loads((store / "spam/spam-v1/metadata.json").read_text())
        assert written == {"lineage": "spam", "version": "1.1", "labels": ["ham", "spam"], "own": 7}
        version.refresh_from_db()
        assert (version.version, version.metadata) == ("1.1", written)
        entry = LogEntry.objects.get(action_flag=CHANGE)
        assert entry.object_id == str(version.pk)
        assert "Edited metadata.json." in entry.change_message
        assert before in entry.change_message
        assert [path.name for path in (store / "spam").iterdir()] == ["spam-v1"]

    def test_what_was_not_touched_is_not_written(self, admin: Client, store: Path, version: ModelVersion) -> None:
        file = store / "spam/spam-v1/metadata.json"
        stamp = file.stat().st_mtime_ns, file.read_bytes()
        admin.post(self.address(), self.form(admin))
        assert (file.stat().st_mtime_ns, file.read_bytes()) == stamp
        assert not LogEntry.objects.exists()

    def test_a_text_is_written_and_an_emptied_key_goes(self, admin: Client, store: Path, version: ModelVersion) -> None:
        form = self.form(admin, labels="", config='{"a": 1}')
        admin.post(self.address(), form)
        assert json.loads((store / "spam/spam-v1/config.json").read_text()) == {"a": 1}
        assert "labels" not in json.loads((store / "spam/spam-v1/metadata.json").read_text())

    @pytest.mark.parametrize(
        ("changes", "place"),
        [
            ({"version": "not so"}, "version"),
            ({"performance_metrics": '{"accuracy": 7}'}, "performance_metrics"),
            ({"canary": '{"inputs": ["a"]}'}, "canary"),
            ({"sample_input": "{"}, "sample_input"),
            ({"metadata": "{"}, "metadata"),
            ({"metadata": '{"created_at": "soon"}'}, "metadata"),
            ({"config": "[]"}, "config"),
        ],
        ids=["version", "accuracy", "canary", "json", "text", "unshown-key", "config"],
    )
    def test_what_discovery_would_refuse_is_told_at_its_place(
        self, admin: Client, store: Path, version: ModelVersion, changes: dict[str, str], place: str
    ) -> None:
        before = (store / "spam/spam-v1/metadata.json").read_bytes()
        answer = admin.post(self.address(), self.form(admin, **changes))
        assert answer.status_code == 422
        assert list(answer.context["errors"]) == [place]
        assert (store / "spam/spam-v1/metadata.json").read_bytes() == before
        assert not LogEntry.objects.exists()

    def test_a_version_that_another_has(self, admin: Client, store: Path, version: ModelVersion) -> None:
        (store / "spam/spam-v2").mkdir()
        (store / "spam/spam-v2/model.skops").write_bytes(b"x")
        (store / "spam/spam-v2/metadata.json").write_text('{"lineage": "spam", "version": "2"}')
        discover(actor="test")
        answer = admin.post(self.address(), self.form(admin, version="2"))
        assert "spam-v2 already" in answer.context["errors"][""][0]

    @pytest.mark.parametrize("status", [Status.LOADING, Status.LOADED, Status.UNLOADING])
    def test_not_while_it_is_in_memory(self, admin: Client, store: Path, version: ModelVersion, status: str) -> None:
        form = self.form(admin, version="2")
        ModelVersion.objects.update(status=status)
        assert admin.post(self.address(), form).status_code == 409
        assert b"Unload it first" in admin.get(self.address()).content
        assert json.loads((store / "spam/spam-v1/metadata.json").read_text())["version"] == "1"

    @pytest.mark.parametrize("status", ACTIVE)
    def test_not_while_a_command_for_it_has_not_ended(
        self, admin: Client, store: Path, version: ModelVersion, status: str
    ) -> None:
        form, before = self.form(admin, version="2"), (store / "spam/spam-v1/metadata.json").read_bytes()
        Operation.objects.create(version=version, kind=OperationKind.LOAD, status=status)
        assert admin.post(self.address(), form).status_code == 409
        assert b"has not ended (load)" in admin.get(self.address()).content
        assert (store / "spam/spam-v1/metadata.json").read_bytes() == before
        Operation.objects.update(status=OperationStatus.CANCELLED)
        assert admin.post(self.address(), form).status_code == 302

    def test_not_while_it_is_to_be_loaded(self, admin: Client, store: Path, version: ModelVersion) -> None:
        form = self.form(admin, version="2")
        ModelVersion.objects.update(desired_state=DesiredState.LOADED)
        assert admin.post(self.address(), form).status_code == 409
        assert b"is to be in memory" in admin.get(self.address()).content
        ModelVersion.objects.update(status=Status.ERROR)  # what is wrong with it may be what is edited
        assert admin.post(self.address(), form).status_code == 302

    def test_a_command_that_comes_between_is_seen(
        self, admin: Client, store: Path, version: ModelVersion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After the page was checked and before anything is written."""
        form, before = self.form(admin, version="2"), (store / "spam/spam-v1/metadata.json").read_bytes()
        real = registering_describing._written

        def written(*given: Any) -> Any:
            Operation.objects.create(version=version, kind=OperationKind.LOAD)
            return real(*given)

        monkeypatch.setattr(registering_describing, "_written", written)
        answer = admin.post(self.address(), form)
        assert answer.status_code == 409
        assert b"has not ended (load)" in answer.content
        assert (store / "spam/spam-v1/metadata.json").read_bytes() == before
        assert not LogEntry.objects.exists()

    def test_its_row_is_locked_while_it_is_written(
        self, admin: Client, version: ModelVersion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A command asks for the same lock."""
        form = self.form(admin, version="2")
        with CaptureQueriesContext(connection) as queries:
            admin.post(self.address(), form)
        asked = [query["sql"] for query in queries]
        lock = next(number for number, sql in enumerate(asked) if sql.endswith("FOR NO KEY UPDATE"))
        assert '"registry_modelversion"' in asked[lock]
        assert next(number for number, sql in enumerate(asked) if "modelhub.describe:" in sql) > lock
        assert next(number for number, sql in enumerate(asked) if 'INSERT INTO "django_admin_log"' in sql) > lock

    def test_writers_of_one_directory_wait_for_each_other(self, version: ModelVersion) -> None:
        before = describing.read_texts("spam/spam-v1")
        fresh = describing.Texts('{"lineage": "spam", "version": "2"}', "")
        key = ["modelhub.describe:spam/spam-v1"]
        other = connection.copy()
        try:
            with other.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", key)
                with connection.cursor() as own:
                    own.execute("SET LOCAL lock_timeout = '20ms'")
                with pytest.raises(OperationalError, match="lock timeout"):
                    describing.write_texts("spam/spam-v1", fresh, seen=before.digest)
                assert describing.read_texts("spam/spam-v1") == before
                cursor.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", key)
        finally:
            other.close()
        assert describing.write_texts("spam/spam-v1", fresh, seen=before.digest) == ["metadata.json"]

    def test_what_was_written_while_one_waited_is_not_lost(
        self, store: Path, version: ModelVersion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen, theirs = describing.read_texts("spam/spam-v1").digest, '{"lineage": "spam", "version": "1.5"}'
        real = describing._alone

        @contextmanager
        def alone(path: str) -> Iterator[None]:
            with real(path):
                (store / path / "metadata.json").write_text(theirs)
                yield

        monkeypatch.setattr(describing, "_alone", alone)
        with pytest.raises(describing.ChangedMeanwhile):
            describing.write_texts("spam/spam-v1", describing.Texts('{"version": "2"}', ""), seen=seen)
        assert (store / "spam/spam-v1/metadata.json").read_text() == theirs

    def test_not_over_what_somebody_else_wrote(self, admin: Client, store: Path, version: ModelVersion) -> None:
        form = self.form(admin, version="2")
        (store / "spam/spam-v1/metadata.json").write_text('{"lineage": "spam", "version": "1.5"}')
        answer = admin.post(self.address(), form)
        assert "Somebody changed" in answer.context["errors"][""][0]
        assert not LogEntry.objects.exists()

    def test_a_full_disk_writes_nothing(
        self, admin: Client, store: Path, version: ModelVersion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, before = describing._replace, (store / "spam/spam-v1/metadata.json").read_bytes()

        def fail(path: str, name: str, text: str) -> None:
            if name == "config.json":
                raise OSError(28, "No space left on device")
            real(path, name, text)

        monkeypatch.setattr(describing, "_replace", fail)
        answer = admin.post(self.address(), self.form(admin, version="2", config="{}"))
        assert "No space left" in answer.context["errors"][""][0]
        assert (store / "spam/spam-v1/metadata.json").read_bytes() == before
        assert not LogEntry.objects.exists()

    def test_a_directory_that_was_never_registered_is_mended(self, admin: Client, store: Path) -> None:
        (store / "spam/broken").mkdir(parents=True)
        (store / "spam/broken/model.skops").write_bytes(b"x")
        (store / "spam/broken/metadata.json").write_text("{bad")
        discover(actor="test")
        run = DiscoveryRun.objects.get()
        report = admin.get(reverse("admin:registry_discoveryrun_change", args=[run.pk])).content.decode()
        assert self.address("spam/broken") in report
        page = admin.get(self.address("spam/broken"))
        form = page.context["form"]
        sent = {name: str(form[name].value() or "") for name in form.fields} | {"metadata": '{"version": "3"}'}
        admin.post(self.address("spam/broken"), sent)
        assert ModelVersion.objects.get().version == "3"

    @pytest.mark.parametrize(
        "path",
        ["spam/none", "spam", "../x", "a/b/c", f"spam/{'x' * 300}"],
        ids=["none", "type", "up", "deep", "long"],
    )
    def test_what_does_not_lie_in_the_store(self, admin: Client, path: str) -> None:
        assert admin.get(f"/admin/describe/{path}/").status_code == 404
        assert admin.post(f"/admin/describe/{path}/", {"seen": "x"}).status_code == 404

    @pytest.mark.parametrize("path", ["\0", "spam/a\0"], ids=["type", "id"])
    def test_a_path_that_the_registry_cannot_be_asked_for(self, admin: Client, path: str) -> None:
        assert admin.get(f"/admin/describe/{quote(path)}/").status_code in (400, 404)
        request = RequestFactory().get("/admin/describe/")
        request.user = User.objects.get()
        answer = registering_describing.describe(request, path)
        assert answer.status_code == 404
        assert "not of the form" in answer.context_data["hindrance"]

    def test_it_costs_the_same_at_any_size(
        self, admin: Client, version: ModelVersion, django_assert_max_num_queries: DjangoAssertNumQueries
    ) -> None:
        admin.get(self.address())
        with django_assert_max_num_queries(6):
            admin.get(self.address())


class TestForms:
    def test_labels_are_lines_unless_lines_cannot_tell_them(self) -> None:
        assert MetadataForm(metadata={"labels": ["a", "b"]}).initial["labels"] == "a\nb"
        assert json.loads(MetadataForm(metadata={"labels": {"0": "a"}}).initial["labels"]) == {"0": "a"}
        assert json.loads(MetadataForm(metadata={"labels": [" a"]}).initial["labels"]) == [" a"]

    def test_a_framework_that_is_not_known_stays_shown(self) -> None:
        form = MetadataForm(metadata={"framework": "mxnet"})
        assert ("mxnet", "mxnet, which is not known") in form.fields["framework"].choices

    def test_every_field_is_described(self) -> None:
        assert all(field.help_text for name, field in DescribeForm().fields.items() if name != "seen")


class TestReport:
    def run(self, **report: Any) -> DiscoveryRun:
        counts = {name: len(found) for name, found in report.items() if name != "notes"}
        return DiscoveryRun.objects.create(actor="ada", finished_at=timezone.now(), report={**report, "counts": counts})

    def page(self, client: Client, run: DiscoveryRun) -> str:
        return client.get(reverse("admin:registry_discoveryrun_change", args=[run.pk])).content.decode()

    def test_groups_counts_links_and_next_steps(self, admin: Client, make_version: Callable[..., Any]) -> None:
        version = make_version("mail-v1")
        run = self.run(
            new=["mail-v1"],
            gone=["old-v1"],
            refused=[{"path": "topic/x", "reason": "The directory is empty."}],
            notes=["A <note>."],
        )
        page = self.page(admin, run)
        assert reverse("admin:registry_modelversion_change", args=[version.pk]) in page
        assert "not registered any more" in page
        assert "Copy the model&#x27;s files into it, or remove it." in page
        assert "A &lt;note&gt;." in page

    def test_nothing_found(self, admin: Client) -> None:
        assert "The store is empty." in self.page(admin, self.run(unchanged=[], refused=[]))
        assert "Everything is as it was." in self.page(admin, self.run(unchanged=["a"]))

    def test_a_failed_one_and_one_that_was_killed(self, admin: Client) -> None:
        failed = DiscoveryRun.objects.create(actor="ada", finished_at=timezone.now(), error="No such store.")
        assert "No such store." in self.page(admin, failed)
        assert "still runs, or was killed" in self.page(admin, DiscoveryRun.objects.create(actor="ada"))

    def test_it_costs_the_same_however_much_was_found(
        self, admin: Client, make_version: Callable[..., Any], django_assert_max_num_queries: DjangoAssertNumQueries
    ) -> None:
        names = [make_version(f"m{number}").model_id for number in range(30)]
        run = self.run(new=names, refused=[{"path": f"topic/r{n}", "reason": "x"} for n in range(30)])
        self.page(admin, run)
        with django_assert_max_num_queries(7):
            self.page(admin, run)

    @pytest.mark.parametrize(
        ("reason", "is_edited"),
        [
            ("metadata.json is not JSON: x", True),
            ('metadata.json: "version" must be', True),
            ("Version 1 of the lineage a is b already; state another", True),
            ("a.bin changed while it was read; run discovery again", False),
            ("It is a symbolic link; a model's directory", False),
            ("Something new", False),
        ],
    )
    def test_each_refusal_has_a_step(self, admin: Client, reason: str, is_edited: bool) -> None:
        user = User.objects.get(username="ada")
        found = refusal_of("topic/x", reason, user)
        assert found.step
        assert bool(found.url) == is_edited
