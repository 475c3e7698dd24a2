"""Which files are an artifact, and what its digest is."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaderd.errors import ArtifactRefused
from loaderd.protocol import ArtifactFile, measured_as
from modelhub.conf import config
from modelhub.policy.effective import change
from modelhub.registry import artifacts
from modelhub.registry.artifacts import (
    Refused,
    digest_of,
    directory_of,
    find_files,
    hash_file,
    load_limit_seconds,
    spec_of,
)
from modelhub.registry.models import Model, ModelVersion
from tests.registry.conftest import Store

MODEL = "sentiment/mood-v1"


def paths_of(store: Store) -> list[str]:
    return [file.path for file in find_files(store.root, MODEL)]


class TestPaths:
    @pytest.mark.parametrize("path", ["", "mood", "../mood", "a/..", "a/./b", "a//b", "/etc/passwd", "a/b/c", "a/b\0"])
    def test_a_path_that_is_not_type_and_model_is_refused(self, store: Store, path: str) -> None:
        with pytest.raises(Refused, match="not of the form"):
            directory_of(path)

    @pytest.mark.parametrize("link", ["sentiment", "sentiment/mood-v1"])
    def test_a_path_through_a_link_is_refused(self, store: Store, tmp_path: Path, link: str) -> None:
        (tmp_path / "elsewhere" / "mood-v1").mkdir(parents=True)
        (store.root / link).parent.mkdir(exist_ok=True)
        (store.root / link).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(Refused, match="symbolic link"):
            directory_of(MODEL)

    def test_a_directory_swapped_for_a_link_after_the_check_is_not_followed(self, store: Store, tmp_path: Path) -> None:
        directory = store.add(MODEL)
        found = find_files(store.root, MODEL)[0]
        directory.rename(tmp_path / "moved")
        directory.symlink_to(tmp_path / "moved")
        with pytest.raises(Refused, match=r"Cannot read model\.skops"):
            hash_file(store.root, MODEL, found)


class TestFiles:
    def test_all_regular_files_are_found_sorted(self, store: Store) -> None:
        store.add(MODEL, {"b.bin": b"b", "a/z.txt": b"", "a/é ü/模型.bin": b"x", ".hidden": b"h"})
        assert paths_of(store) == [".hidden", "a/z.txt", "a/é ü/模型.bin", "b.bin"]

    @pytest.mark.parametrize("target", ["../other-v1/model.skops", "/etc/hostname", "nothing", "weights", ".", "link"])
    def test_links_are_refused_wherever_they_lead(self, store: Store, target: str) -> None:
        store.add("sentiment/other-v1")
        directory = store.add(MODEL, {"weights/part-1.bin": b"w"})
        (directory / "link").symlink_to(target)
        with pytest.raises(Refused, match="link is a symbolic link; only regular files"):
            find_files(store.root, MODEL)

    def test_a_file_swapped_for_a_link_is_not_followed(self, store: Store) -> None:
        directory = store.add(MODEL, {"model.skops": b"x", "other": b"y"})
        found = find_files(store.root, MODEL)[0]
        (directory / "model.skops").unlink()
        (directory / "model.skops").symlink_to("other")
        with pytest.raises(Refused, match=r"Cannot read model\.skops"):
            hash_file(store.root, MODEL, found)

    def test_a_file_swapped_for_a_pipe_does_not_block(self, store: Store) -> None:
        directory = store.add(MODEL)
        found = find_files(store.root, MODEL)[0]
        (directory / "model.skops").unlink()
        os.mkfifo(directory / "model.skops")
        with pytest.raises(Refused, match="is a named pipe"):
            hash_file(store.root, MODEL, found)

    def test_a_named_pipe_is_refused_and_does_not_block(self, store: Store) -> None:
        os.mkfifo(store.add(MODEL) / "pipe")
        with pytest.raises(Refused, match="pipe is a named pipe"):
            find_files(store.root, MODEL)

    def test_a_socket_is_refused(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(store.add(MODEL))
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("door")
            with pytest.raises(Refused, match="door is a socket"):
                find_files(store.root, MODEL)

    @pytest.mark.parametrize("name", ["a\nb", "a\x1b[31mb", "a\u202eb"])
    def test_a_name_with_control_characters_is_refused(self, store: Store, name: str) -> None:
        store.add(MODEL, {name: b""})
        with pytest.raises(Refused, match="control or invisible"):
            find_files(store.root, MODEL)

    def test_a_name_that_is_not_utf8_is_refused(self, store: Store) -> None:
        directory = store.add(MODEL)
        with open(os.fsencode(directory) + b"/\xff\xfe", "wb"):
            pass
        with pytest.raises(Refused, match="control or invisible"):
            find_files(store.root, MODEL)

    def test_too_many_files_are_refused(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(artifacts, "MAX_FILES", 3)
        store.add(MODEL, {f"{number}.bin": b"" for number in range(4)})
        with pytest.raises(Refused, match="more than 3 files"):
            find_files(store.root, MODEL)

    def test_a_path_that_is_too_long_is_refused(self, store: Store) -> None:
        store.add(MODEL, {"/".join(["d" * 100] * 6): b""})
        with pytest.raises(Refused, match="the limit is 512"):
            find_files(store.root, MODEL)

    def test_what_cannot_be_read_is_refused_with_the_reason(self, store: Store, ordinary_user: None) -> None:
        (store.add(MODEL) / "model.skops").chmod(0)
        (found,) = find_files(store.root, MODEL)
        with pytest.raises(Refused, match=r"Cannot read model\.skops: Permission denied"):
            hash_file(store.root, MODEL, found)


@pytest.fixture
def ordinary_user(store: Store) -> Iterator[None]:
    """Root may read everything; the test then becomes the owner of the store without root's rights."""
    if os.geteuid() != 0:
        yield
        return
    opened = []
    for folder in [store.root, *store.root.parents]:
        if not folder.stat().st_mode & 0o001:
            opened.append((folder, folder.stat().st_mode))
            folder.chmod(folder.stat().st_mode | 0o011)
    os.chown(store.root, 65534, 65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        for folder, mode in opened:
            folder.chmod(mode)


class TestHashing:
    def test_a_file_that_grows_while_it_is_read_is_refused(self, store: Store) -> None:
        directory = store.add(MODEL, {"model.skops": bytes(3 << 20)})
        (found,) = find_files(store.root, MODEL)

        def append(count: int) -> None:
            with open(directory / "model.skops", "ab") as file:
                file.write(b"more")

        with pytest.raises(Refused, match="changed while it was read"):
            hash_file(store.root, MODEL, found, append)

    def test_a_file_overwritten_in_place_while_it_is_read_is_refused(self, store: Store) -> None:
        directory = store.add(MODEL, {"model.skops": bytes(3 << 20)})
        (found,) = find_files(store.root, MODEL)
        before = os.stat(directory / "model.skops")

        def overwrite(count: int) -> None:
            with open(directory / "model.skops", "r+b") as file:
                file.write(b"x")
            os.utime(directory / "model.skops", ns=(before.st_atime_ns, before.st_mtime_ns))

        with pytest.raises(Refused, match="changed while it was read"):
            hash_file(store.root, MODEL, found, overwrite)

    def test_a_write_right_after_the_hash_leaves_other_times(self, store: Store) -> None:
        """Otherwise the next discovery would take the new bytes for the old ones."""
        directory = store.add(MODEL)
        for content in (b"1", b"2", b"3", b"4"):
            (directory / "model.skops").write_bytes(content)
            hashed = hash_file(store.root, MODEL, find_files(store.root, MODEL)[0])
            (directory / "model.skops").write_bytes(b"x")
            assert not find_files(store.root, MODEL)[0].is_unchanged_since(hashed)

    def test_it_can_be_stopped(self, store: Store) -> None:
        store.add(MODEL)
        stop = threading.Event()
        stop.set()
        with pytest.raises(artifacts.Stopped):
            hash_file(store.root, MODEL, find_files(store.root, MODEL)[0], stop=stop)


names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)
hashes = st.binary(min_size=32, max_size=32).map(bytes.hex)
contents = st.dictionaries(names, st.tuples(st.integers(0, 1 << 40), hashes), max_size=8)


def as_files(content: dict[str, tuple[int, str]], time_ns: int) -> list[ArtifactFile]:
    return [ArtifactFile(path, size, time_ns, time_ns, sha256) for path, (size, sha256) in content.items()]


class TestDigest:
    @given(contents, st.randoms(), st.integers(0, 1 << 60), st.integers(0, 1 << 60))
    def test_times_and_order_do_not_count(self, content, random, time_ns, other_time_ns) -> None:
        shuffled = as_files(content, other_time_ns)
        random.shuffle(shuffled)
        assert digest_of(as_files(content, time_ns)) == digest_of(shuffled)

    @given(contents, contents)
    def test_names_sizes_and_bytes_count(self, content, other) -> None:
        assert (digest_of(as_files(content, 0)) == digest_of(as_files(other, 0))) == (content == other)

    def test_a_shell_makes_the_same_digest(self, store: Store) -> None:
        """As docs/registry.md says."""
        import subprocess

        directory = store.add(MODEL, {"b.bin": b"b" * 5, "a/c d.txt": b"c", "é.txt": b"", "B": b"1"})
        files = [hash_file(store.root, MODEL, file) for file in find_files(store.root, MODEL)]
        recipe = (
            r"find . -type f -printf '%P\n' | LC_ALL=C sort | while IFS= read -r path; do "
            r"""printf '%s %s %s\n' "$(sha256sum < "$path" | cut -d' ' -f1)" "$(stat -c %s "$path")" "$path"; """
            r"done | sha256sum | cut -d' ' -f1"
        )
        told = subprocess.run(["sh", "-c", recipe], cwd=directory, capture_output=True, text=True, check=True)
        assert told.stdout.strip() == digest_of(files)


@pytest.mark.django_db
class TestSpec:
    def version(self, **values: object) -> ModelVersion:
        lineage = Model(name="mood", type="sentiment")
        given = {"model_id": "mood-v1", "path": MODEL, "framework": "sklearn", "artifact_format": "pickle"}
        return ModelVersion(lineage=lineage, digest="d" * 64, **{**given, **values})

    def test_it_holds_the_absolute_directory_and_the_settings_defaults(self, store: Store) -> None:
        manifest = [{"path": "model.pkl", "size_bytes": 1, "mtime_ns": 2, "ctime_ns": 3, "sha256": "a" * 64}]
        spec = spec_of(self.version(manifest=manifest))
        assert spec.directory == str(store.root / MODEL)
        assert (spec.timeout_seconds, spec.threads, spec.approved) == (30, 1, False)
        assert spec.files == (ArtifactFile("model.pkl", 1, 2, 3, "a" * 64),)
        assert (spec.canary, spec.memory_limit_bytes, spec.peak_bytes) == (None, None, None)
        assert (spec.instances, spec.max_queue, spec.precision) == (1, 1024, "")

    def test_the_models_own_policy_comes_first(self, store: Store) -> None:
        spec = spec_of(self.version(load_timeout_seconds=5.0, threads=3, approved_digest="d" * 64, memory_limit_mb=300))
        assert (spec.timeout_seconds, spec.threads, spec.approved) == (5.0, 3, True)
        assert spec.memory_limit_bytes == 300 * 2**20
        spec = spec_of(self.version(instances=4, max_queue=16, precision="bf16"))
        assert (spec.instances, spec.max_queue, spec.precision) == (4, 16, "bf16")

    def test_the_policy_in_force_comes_before_the_environment(self, store: Store) -> None:
        change({"MODEL_TIMEOUT_SECONDS": 77.0}, user=None)
        assert spec_of(self.version()).timeout_seconds == 77.0

    def test_many_specs_need_no_query_each(self, store: Store, django_assert_num_queries: Any) -> None:
        with django_assert_num_queries(0):
            spec_of(self.version(), settings=config())
            load_limit_seconds(self.version(load_timeout_seconds=5.0))

    def test_a_path_out_of_the_store_is_refused(self, store: Store) -> None:
        with pytest.raises(ArtifactRefused, match="mood-v1 may not be loaded"):
            spec_of(self.version(path="../secrets"))

    @pytest.mark.parametrize(
        ("measured_digest", "measured_device", "device", "is_known"),
        [
            ("d" * 64, "cpu", "cpu", True),
            ("d" * 64, "cpu", None, True),
            ("d" * 64, "cpu", "H100", False),
            ("e" * 64, "cpu", "cpu", False),
            ("", "", None, False),
        ],
        ids=["same", "device-unknown", "other-device", "other-bytes", "never"],
    )
    def test_what_was_measured_of_these_bytes_on_this_device_is_told(
        self, store: Store, measured_digest: str, measured_device: str, device: str | None, is_known: bool
    ) -> None:
        version = self.version(
            measured_digest=measured_digest,
            measured_device=measured_device,
            measured_peak_bytes=30,
            measured_resident_bytes=20,
            measured_gpu_bytes=10,
        )
        spec = spec_of(version, device=device)
        assert (spec.peak_bytes, spec.resident_bytes, spec.gpu_bytes) == ((30, 20, 10) if is_known else (None,) * 3)

    @pytest.mark.parametrize(("instances", "precision"), [(2, ""), (1, "bf16")])
    def test_what_was_measured_otherwise_is_not_told(self, store: Store, instances: int, precision: str) -> None:
        measured = {"measured_digest": "d" * 64, "measured_device": "cpu", "measured_peak_bytes": 30}
        assert spec_of(self.version(**measured), device="cpu").peak_bytes == 30
        asked = {"instances": instances, "precision": precision}
        assert spec_of(self.version(**measured, **asked), device="cpu").peak_bytes is None
        alike = self.version(**measured, **asked, measured_as=measured_as(instances, precision))
        assert spec_of(alike, device="cpu").peak_bytes == 30

    def test_the_canary_of_metadata_comes_before_the_recorded_one(self, store: Store) -> None:
        recorded = {"source": "recorded", "outputs": {"label": ["good"]}}
        assert spec_of(self.version(canary=recorded, canary_digest="d" * 64)).canary == recorded
        assert spec_of(self.version(canary=recorded, canary_digest="e" * 64)).canary is None, "of other bytes"
        stated = {"inputs": ["fine"], "predictions": ["good"]}
        spec = spec_of(self.version(canary=recorded, canary_digest="d" * 64, metadata={"canary": stated}))
        assert spec.canary == {"source": "metadata", **stated, "tolerance": None}
