"""Uploads: names and zips that are refused, what is recognised, and the move into the store, whole or not at all."""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.files.uploadhandler import SkipFile
from django.utils import timezone

from modelhub.conf import config
from modelhub.registry.artifacts import Refused
from modelhub.registry.discovery import DiscoveryFailed
from modelhub.registry.metadata import MAX_JSON_BYTES
from modelhub.registry.models import ModelVersion
from modelhub.registry.uploads import placing, staging
from modelhub.registry.uploads.inspecting import apply_fields, check_free, check_model_id, inspect, move, read_metadata
from modelhub.registry.uploads.names import check_name, check_together, without_top
from modelhub.registry.uploads.receiving import Received, StagingHandler, check_length
from modelhub.registry.uploads.staging import NoSuchUpload, Staging, create, open_of, purge, staged, uploads_dir
from modelhub.registry.uploads.unpacking import place_files
from tests.registry.conftest import Store

METADATA = {"lineage": "mail", "version": "1.0", "description": "Sorts mail."}


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    monkeypatch.setattr(config(), "MODELHUB_STATE_DIR", state)


def zipped(*entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return packed.getvalue()


def received(upload: Staging, *files: tuple[str, bytes]) -> list[Received]:
    found = []
    for number, (name, content) in enumerate(files):
        path = upload.incoming / str(number)
        path.write_bytes(content)
        found.append(Received(name, path, len(content)))
    return found


def unpacked(content: bytes, *, path: str = "topic/mail-v1.0") -> Staging:
    """An upload of this zip, placed in its staging store."""
    upload = create()
    (upload.store / path).parent.mkdir(exist_ok=True)
    place_files(received(upload, ("a.ZIP", content)), [], upload.store / path)
    return upload


def good(**more: Any) -> bytes:
    return zipped(("model.skops", b"skops"), ("metadata.json", json.dumps({**METADATA, **more}).encode()))


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def looks_with_room(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """The disk has room at the first `count` looks at it, and none afterwards; it is looked at before each write."""
    left = iter([1 << 50] * count)
    monkeypatch.setattr(staging, "RECHECK_BYTES", 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=next(left, staging.SPARE_BYTES)))


class TestNames:
    @pytest.mark.parametrize(
        "name",
        [
            *("../x", "a/../x", "/etc/passwd", "C:/x", "c:x", "a\\b", "\\\\host\\x", "a//b", "./a", "a/.", "", "a\0b"),
            *("a\nb", "a\u202eb", "x" * 600, "ä" * 200),
        ],
    )
    def test_what_could_lead_out_is_refused(self, name: str) -> None:
        with pytest.raises(Refused):
            check_name(name)

    @pytest.mark.parametrize("name", ["model.skops", "variables/variables.index", "Mail für dich.json", ".config"])
    def test_plain_names_pass(self, name: str) -> None:
        check_name(name)

    @pytest.mark.parametrize(
        ("paths", "why"),
        [
            (["a", "a"], "twice"),
            (["Model.pkl", "model.pkl"], "capitals"),
            (["A/x", "a/y"], "capitals"),
            (["caf\u00e9", "cafe\u0301"], "accents"),
            (["a", "a/b"], "file and a folder"),
            (["a/b", "a"], "file and a folder"),
        ],
    )
    def test_names_that_are_one_on_some_disks_are_refused(self, paths: list[str], why: str) -> None:
        with pytest.raises(Refused, match=why):
            check_together(paths)

    def test_folders_that_all_lie_in_are_left_out(self) -> None:
        assert without_top(["topic/m-v1/a", "topic/m-v1/b/c"]) == (["a", "b/c"], "m-v1")
        assert without_top(["a", "b/c"]) == (["a", "b/c"], "")
        assert without_top(["a/x", "b/y"]) == (["a/x", "b/y"], "")

    @pytest.mark.parametrize("model_id", ["", ".", "..", ".hidden", "a/b", " a", "a ", "x" * 201, "health", "a\nb"])
    def test_ids_that_no_model_can_have(self, model_id: str) -> None:
        with pytest.raises(Refused):
            check_model_id(model_id)


class TestUnpacking:
    def test_a_zip_of_the_folder_is_the_folder(self) -> None:
        upload = unpacked(
            zipped(
                ("mail-v1.0/", b""),
                ("mail-v1.0/model.skops", b"x"),
                ("mail-v1.0/deep/er/file", b"y"),
                ("mail-v1.0/.DS_Store", b"z"),
                ("__MACOSX/mail-v1.0/._model.skops", b"z"),
            )
        )
        target = upload.store / "topic/mail-v1.0"
        assert files_below(target) == {"model.skops", "deep/er/file"}
        assert not list(upload.incoming.iterdir())
        assert {stat.S_IMODE(path.stat().st_mode) for path in target.rglob("*")} == {0o644, 0o755}

    @pytest.mark.parametrize(
        "name", ["../out", "/etc/x", "a/../../out", "a\\b", "C:/x"], ids=["up", "absolute", "inner", "back", "drive"]
    )
    def test_a_name_that_leads_out_leaves_nothing(self, name: str) -> None:
        entry = zipfile.ZipInfo("x")
        entry.filename = name
        with pytest.raises(Refused):
            unpacked(zipped(("model.skops", b"x"), (entry, b"bad")))
        assert not files_below(uploads_dir() / os.listdir(uploads_dir())[0] / "store")

    @pytest.mark.parametrize(
        ("mode", "why"),
        [(stat.S_IFLNK, "symbolic link"), (stat.S_IFIFO, "pipe"), (stat.S_IFCHR, "device"), (stat.S_IFSOCK, "socket")],
        ids=["link", "fifo", "device", "socket"],
    )
    def test_only_files_and_folders(self, mode: int, why: str) -> None:
        entry = zipfile.ZipInfo("model.skops")
        entry.external_attr = (mode | 0o777) << 16
        with pytest.raises(Refused, match=why):
            unpacked(zipped((entry, b"/etc/passwd")))

    def test_an_encrypted_zip_is_refused(self) -> None:
        content = bytearray(zipped(("model.skops", b"x")))
        for signature, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
            content[content.find(signature) + offset] |= 1
        with pytest.raises(Refused, match="encrypted"):
            unpacked(bytes(content))

    def test_twice_the_same_name(self) -> None:
        with pytest.warns(UserWarning, match="Duplicate"):
            content = zipped(("model.skops", b"x"), ("model.skops", b"y"))
        with pytest.raises(Refused, match="twice"):
            unpacked(content)

    def test_names_that_differ_in_capitals(self) -> None:
        with pytest.raises(Refused, match="capitals"):
            unpacked(zipped(("model.skops", b"x"), ("Model.skops", b"y")))

    def test_what_unpacks_to_too_much(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(config(), "UPLOAD_MAX_UNPACKED_MB", 1)
        with pytest.raises(Refused, match="UPLOAD_MAX_UNPACKED_MB"):
            unpacked(zipped(("model.skops", os.urandom(1 << 20) + b"more")))

    def test_a_bomb(self) -> None:
        with pytest.raises(Refused, match="UPLOAD_MAX_RATIO"):
            unpacked(zipped(("model.skops", bytes(17 << 20))))

    def test_small_things_may_be_packed_well(self) -> None:
        assert files_below(unpacked(zipped(("model.skops", bytes(1 << 20)))).store)

    def test_more_files_than_are_accepted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(config(), "UPLOAD_MAX_FILES", 3)
        with pytest.raises(Refused, match="lists 4 files"):
            unpacked(zipped(*((f"f{number}", b"x") for number in range(4))))

    def test_a_list_that_lies_about_its_count_is_not_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(config(), "UPLOAD_MAX_FILES", 2)
        content = bytearray(zipped(*((f"{'f' * 200}{number}", b"x") for number in range(20))))
        end = content.rfind(b"PK\x05\x06")
        content[end + 8 : end + 12] = b"\x01\x00\x01\x00"
        with pytest.raises(Refused, match="are accepted"):
            unpacked(bytes(content))

    @pytest.mark.parametrize("damage", ["cut", "garbage", "content", "size"])
    def test_damaged_ones(self, damage: str) -> None:
        content = bytearray(zipped(("model.skops", os.urandom(5000)), method=zipfile.ZIP_STORED))
        match damage:
            case "cut":
                content = content[:3000]
            case "garbage":
                content = bytearray(os.urandom(500))
            case "content":
                content[1000] ^= 0xFF
            case "size":
                at = content.find(b"PK\x01\x02")
                content[at + 24 : at + 28] = (4000).to_bytes(4, "little")
        with pytest.raises(Refused):
            unpacked(bytes(content))

    def test_a_zip64_list_is_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)  # so that two files make zipfile write the long form
        content = zipped(("model.skops", b"x"), ("b", b"y"))
        assert b"PK\x06\x07" in content
        assert files_below(unpacked(content).store) == {"topic/mail-v1.0/model.skops", "topic/mail-v1.0/b"}

    def test_a_record_that_zipfile_does_not_read_counts_for_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The locator leads to one that says little; zipfile reads the one before the locator."""
        monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
        monkeypatch.setattr(config(), "UPLOAD_MAX_FILES", 2)
        names = [f"{'f' * 200}{number}" for number in range(20)]
        little = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, 46, 0)
        content = bytearray(zipped(("first", little), *((name, b"x") for name in names), method=zipfile.ZIP_STORED))
        locator = content.rfind(b"PK\x06\x07")
        content[locator + 8 : locator + 16] = content.find(little).to_bytes(8, "little")
        assert len(zipfile.ZipFile(io.BytesIO(content)).infolist()) == 21
        with pytest.raises(Refused, match="not where it is said"):
            unpacked(bytes(content))

    def test_a_list_behind_the_longest_comment_is_measured_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
        monkeypatch.setattr(config(), "UPLOAD_MAX_FILES", 2)
        content = bytearray(zipped(*((f"{'f' * 200}{number}", b"x") for number in range(20))))
        end = content.rfind(b"PK\x05\x06")
        content[end + 8 : end + 16] = struct.pack("<HHL", 1, 1, 46)
        content += b"x" * (1 << 16)
        assert len(zipfile.ZipFile(io.BytesIO(content)).infolist()) == 20
        with pytest.raises(Refused, match="lists 20 files"):
            unpacked(bytes(content))

    @pytest.mark.parametrize("name", ["metadata.json", "config.json"])
    def test_a_description_that_is_a_folder(self, name: str) -> None:
        with pytest.raises(Refused, match=f"{name} is a folder"):
            unpacked(zipped(("model.skops", b"x"), (f"{name}/x", b"{}")))
        upload = create()
        files = received(upload, ("model.skops", b"x"), ("x", b"{}"))
        with pytest.raises(Refused, match=f"{name} is a folder"):
            place_files(files, ["m/model.skops", f"m/{name}/x"], upload.store / "topic/m")

    def test_a_disk_that_others_fill_ends_the_unpacking(self, monkeypatch: pytest.MonkeyPatch) -> None:
        looks_with_room(monkeypatch, 2)  # for the sum, and for the first file
        with pytest.raises(Refused, match="filled up meanwhile"):
            unpacked(zipped(("model.skops", b"x"), ("b", b"y")))
        [upload] = uploads_dir().iterdir()
        assert (upload / "store/topic/mail-v1.0/b").stat().st_size == 0

    def test_a_disk_that_others_fill_ends_the_receiving(self, monkeypatch: pytest.MonkeyPatch) -> None:
        upload = create()
        handler = StagingHandler(upload)
        looks_with_room(monkeypatch, 2)
        for name in ("a", "b"):
            handler.new_file("files", name, "application/zip", None)
            handler.receive_data_chunk(b"x", 0)
            handler.file_complete(1)
        handler.new_file("files", "c", "application/zip", None)
        with pytest.raises(SkipFile):
            handler.receive_data_chunk(b"x", 0)
        handler.close()
        assert "filled up meanwhile" in handler.failure
        assert list(upload.incoming.iterdir()) == []
        with pytest.raises(SkipFile):
            handler.new_file("files", "d", "application/zip", None)

    def test_single_files_keep_their_paths(self) -> None:
        upload = create()
        files = received(upload, ("saved_model.pb", b"a"), ("variables.index", b"b"), (".DS_Store", b"c"))
        paths = ["m/saved_model.pb", "m/variables/variables.index", "m/.DS_Store"]
        target = upload.store / "topic/m"
        target.parent.mkdir()
        placed = place_files(files, paths, target)
        assert files_below(target) == {"saved_model.pb", "variables/variables.index"}
        assert (placed.files, placed.top) == (2, "m")

    @pytest.mark.parametrize(
        ("files", "paths", "why"),
        [
            ([], [], "No file"),
            ([("a", b"")], ["a", "b"], "announced"),
            ([("a.tar.gz", b"")], ["a.tar.gz"], "zip"),
            ([("a", b""), ("b", b"")], ["../a", "b"], "empty part"),
            ([(".DS_Store", b"")], [".DS_Store"], "no file of a model"),
        ],
        ids=["none", "fewer", "tar", "up", "junk"],
    )
    def test_single_files_are_checked_alike(self, files: list[tuple[str, bytes]], paths: list[str], why: str) -> None:
        upload = create()
        with pytest.raises(Refused, match=why):
            place_files(received(upload, *files), paths, upload.store / "topic" / "m")

    def test_a_full_disk_is_told_before_anything_is_unpacked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(staging, "SPARE_BYTES", 1 << 60)
        with pytest.raises(Refused, match="make room"):
            unpacked(good())

    def test_an_announced_length_is_checked(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(config(), "UPLOAD_MAX_MB", 1)
        check_length({"CONTENT_LENGTH": str(1 << 20)}, tmp_path)
        with pytest.raises(Refused, match="UPLOAD_MAX_MB"):
            check_length({"CONTENT_LENGTH": str(3 << 20)}, tmp_path)


@pytest.mark.django_db
@pytest.mark.usefixtures("store")
class TestInspecting:
    def test_what_is_recognised(self) -> None:
        found = inspect(unpacked(good(name="Mail")))
        assert (found.refusal, found.framework, found.artifact_format) == ("", "sklearn", "skops")
        assert (found.name, found.lineage, found.version, found.executes_code) == ("Mail", "mail", "1.0", False)
        assert (found.file_count, found.versions, found.returns) == (2, 0, False)

    def test_a_pickle_can_run_code(self) -> None:
        assert inspect(unpacked(zipped(("model.pkl", b"x")))).executes_code

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (zipped(("readme.txt", b"x")), "No framework"),
            (zipped(("model.skops", b"x"), ("metadata.json", b"{bad")), "metadata.json is not JSON"),
            (zipped(("model.skops", b"x"), ("metadata.json", b'{"version": 1}')), '"version"'),
            (zipped(("model.skops", b"x"), ("config.json", b"[]")), "config.json"),
        ],
        ids=["unknown", "no-json", "bad-key", "config"],
    )
    def test_what_discovery_would_refuse_is_refused_before(self, content: bytes, why: str) -> None:
        assert why in inspect(unpacked(content)).refusal

    def test_what_is_taken(self, store: Store, discovered: Callable[..., Any]) -> None:
        store.add("topic/mail-v1.0", metadata=METADATA)
        discovered()
        assert "lies in the store already" in inspect(unpacked(good())).refusal
        assert "Version 1.0 of the lineage mail is mail-v1.0 already" in (
            inspect(unpacked(good(), path="topic/other")).refusal
        )
        assert "of type topic" in inspect(unpacked(good(version="2"), path="intent/other")).refusal
        assert "capitals" in inspect(unpacked(good(version="3"), path="topic/MAIL-v1.0")).refusal
        assert inspect(unpacked(good(version="2"), path="topic/other")).versions == 1

    def test_a_model_that_is_gone_comes_back_with_its_own_bytes_only(
        self, store: Store, discovered: Callable[..., Any]
    ) -> None:
        directory = store.add("topic/mail-v1.0", {"model.skops": b"skops"}, json.dumps(METADATA))
        discovered()
        (directory / "model.skops").rename(store.root / "kept")
        (directory / "metadata.json").unlink()
        directory.rmdir()
        discovered()
        assert ModelVersion.objects.get().missing_since is not None
        same = inspect(unpacked(good()))
        assert (same.refusal, same.returns) == ("", True)
        assert "other bytes" in inspect(unpacked(good(description="else"))).refusal

    def test_a_type_that_there_is_not(self) -> None:
        with pytest.raises(Refused, match="The type is one of"):
            check_free("../x", "m")

    @pytest.mark.parametrize(
        ("make", "why"),
        [
            (lambda file: file.write_bytes(b" " * (MAX_JSON_BYTES + 1)), "more than 4194304 bytes"),
            (lambda file: file.mkdir(), "no file"),
            (os.mkfifo, "no file"),
            (lambda file: file.symlink_to("/etc/hostname"), "cannot be read"),
            (lambda file: file.write_bytes(b"[]"), "JSON object"),
        ],
        ids=["long", "folder", "pipe", "link", "list"],
    )
    def test_a_metadata_file_that_is_not_read(self, make: Callable[[Path], Any], why: str) -> None:
        upload = unpacked(zipped(("model.skops", b"x")))
        assert read_metadata(upload, "topic/mail-v1.0") == {}
        make(upload.store / "topic/mail-v1.0/metadata.json")
        with pytest.raises(Refused, match=why):
            read_metadata(upload, "topic/mail-v1.0")
        with pytest.raises(Refused, match=why):
            apply_fields(upload, "topic/mail-v1.0", {"name": "x"})

    def test_it_is_corrected_without_being_sent_again(self, store: Store) -> None:
        store.add("topic/mail-v1.0", metadata=METADATA)
        upload = unpacked(good())
        apply_fields(upload, "topic/mail-v1.0", {"version": "1.1", "description": None, "labels": ["a", "b"]})
        move(upload, "topic/mail-v1.0", "topic", "mail-v1.1")
        found = inspect(upload)
        assert (found.refusal, found.model_id, found.version) == ("", "mail-v1.1", "1.1")
        assert found.metadata == {"lineage": "mail", "version": "1.1", "labels": ["a", "b"]}


@pytest.mark.django_db
class TestRegistering:
    def test_it_is_moved_and_registered(self, store: Store) -> None:
        upload = unpacked(good())
        version = placing.register(upload, actor="ada")
        assert (version.model_id, version.path, version.lineage.name) == ("mail-v1.0", "topic/mail-v1.0", "mail")
        assert files_below(store.root) == {"topic/mail-v1.0/model.skops", "topic/mail-v1.0/metadata.json"}
        assert not upload.folder.exists()

    def test_over_file_systems_it_is_copied_and_then_renamed(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, seen = os.rename, []

        def rename(source: Any, target: Any, **options: Any) -> None:
            if str(source).startswith(str(uploads_dir())):
                raise OSError(18, "Invalid cross-device link")
            seen.append(Path(source).name)
            real(source, target, **options)

        monkeypatch.setattr(os, "rename", rename)
        upload = unpacked(good())
        placing.register(upload, actor="ada")
        assert seen == [f".uploading-{upload.token}"]
        assert files_below(store.root) == {"topic/mail-v1.0/model.skops", "topic/mail-v1.0/metadata.json"}
        assert not upload.folder.exists()

    def test_a_store_on_another_disk_that_others_fill(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        def rename(*_: Any, **__: Any) -> None:
            raise OSError(18, "Invalid cross-device link")

        upload = unpacked(good())
        monkeypatch.setattr(os, "rename", rename)
        looks_with_room(monkeypatch, 2)  # for the sum, and for the first file
        with pytest.raises(Refused, match="filled up meanwhile"):
            placing.register(upload, actor="ada")
        assert files_below(store.root) == set()
        assert len(files_below(upload.store)) == 2

    def test_what_cannot_be_moved_leaves_the_store_as_it_was(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def rename(source: Any, target: Any, **options: Any) -> None:
            raise PermissionError(13, "Permission denied")

        upload = unpacked(good())
        monkeypatch.setattr(os, "rename", rename)
        with pytest.raises(Refused, match="Permission denied"):
            placing.register(upload, actor="ada")
        assert not files_below(store.root)
        assert files_below(upload.store)

    def test_a_name_that_was_taken_meanwhile(self, store: Store) -> None:
        upload = unpacked(good())
        theirs = store.add("topic/mail-v1.0", {"model.skops": b"theirs"})
        with pytest.raises(Refused, match="already"):
            placing.register(upload, actor="ada")
        with pytest.raises(Refused, match="meanwhile"):
            placing.move_to_store(upload.store / "topic/mail-v1.0", "topic/mail-v1.0")
        assert (theirs / "model.skops").read_bytes() == b"theirs"

    def test_what_discovery_refuses_all_the_same_is_taken_back(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        upload = unpacked(good())
        found = inspect(upload)
        monkeypatch.setattr(placing, "inspect", lambda _: found)  # as if the other came right after the look
        store.add("topic/another", metadata=METADATA)
        with pytest.raises(Refused, match="Version 1.0"):
            placing.register(upload, actor="ada")
        assert not (store.root / "topic/mail-v1.0").exists()
        assert files_below(upload.store)

    def test_without_discovery_it_waits_in_the_store(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(**options: Any) -> None:
            raise DiscoveryFailed("Another discovery runs.")

        monkeypatch.setattr(placing, "discover", fail)
        with pytest.raises(placing.NotRegistered, match="Another discovery runs."):
            placing.register(unpacked(good()), actor="ada")
        assert (store.root / "topic/mail-v1.0/model.skops").exists()


class TestStaging:
    def age(self, upload: Staging, seconds: float) -> None:
        at = timezone.now().timestamp() - seconds
        for place in (upload.incoming, upload.folder):
            os.utime(place, (at, at))

    def test_what_nobody_confirmed_is_thrown_away(self, store: Store) -> None:
        old, young = create(), create()
        half = store.root / "topic" / f"{staging.HALF_COPY}{'0' * 32}"
        going_on = store.root / "topic" / f"{staging.HALF_COPY}{young.token}"
        for folder in (half, going_on):
            folder.mkdir(parents=True)
        with old.held():  # makes the lock's file
            pass
        self.age(old, 7200)
        assert purge(3600) == 1
        assert [path.name for path in uploads_dir().iterdir()] == [young.token]
        assert (half.exists(), going_on.exists()) == (False, True)

    def test_what_somebody_works_with_stays(self, store: Store) -> None:
        upload = create()
        with upload.held():
            self.age(upload, 7200)
            assert purge(3600) == 0
        assert upload.folder.exists()

    def test_one_person_has_so_many_open(self) -> None:
        mine = [create(7) for _ in range(staging.MAX_OPEN)]
        assert {upload.token for upload in open_of(7)} == {upload.token for upload in mine}
        with pytest.raises(Refused, match="3 uploads of yours are open"):
            create(7)
        create(8)
        mine[0].remove()
        create(7)

    def test_what_a_killed_process_left_is_not_counted(self) -> None:
        left, going_on, waiting = (create(7) for _ in range(3))
        waiting.keep_note({"user": 7, "inspection": {}})
        at = timezone.now().timestamp() - 120
        for upload in (left, going_on, waiting):
            (upload.folder / "lock").touch()
            os.utime(upload.folder / "upload.json", (at, at))
            self.age(upload, 120)
        with going_on.held():
            assert {upload.token for upload in open_of(7)} == {going_on.token, waiting.token}
        assert not left.folder.exists()

    def test_half_a_note_is_none(self) -> None:
        upload = create(7)
        (upload.folder / "upload.json").write_text('{"user"')
        assert open_of(7) == []
        with pytest.raises(NoSuchUpload):
            upload.note()

    def test_without_uploads_there_is_nothing_to_do(self) -> None:
        assert purge(0) == 0

    def test_the_folder_is_private(self) -> None:
        create()
        assert stat.S_IMODE(uploads_dir().stat().st_mode) == 0o700

    @pytest.mark.parametrize("token", ["..", "../..", "x", "0" * 32, "A" * 32])
    def test_a_token_is_no_path(self, token: str) -> None:
        with pytest.raises(NoSuchUpload):
            staged(token)

    def test_one_at_a_time(self) -> None:
        upload = create()
        with upload.held(), (upload.folder / "lock").open("w") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def test_who_waited_finds_it_gone(self) -> None:
        upload = create()
        upload.remove()
        with pytest.raises(NoSuchUpload), upload.held():
            pass
