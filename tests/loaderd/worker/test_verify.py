"""Files are what was registered, or nothing of them is read."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from loaderd.errors import ArtifactChanged
from loaderd.protocol import ArtifactFile
from loaderd.worker.verify import verify
from tests.loaderd.worker.process import spec


def registered(folder: Path, *names: str) -> tuple[ArtifactFile, ...]:
    entries = []
    for name in names:
        seen = (folder / name).stat()
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        entries.append(ArtifactFile(name, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, digest))
    return tuple(entries)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.bin").write_bytes(b"weights")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "config.json").write_bytes(b"{}")
    return tmp_path


def check(folder: Path, files: tuple[ArtifactFile, ...]) -> list[float]:
    shares: list[float] = []
    verify(spec(directory=str(folder), files=files), shares.append)
    return shares


def test_untouched_files_pass_and_progress_is_told(folder: Path) -> None:
    assert check(folder, registered(folder, "model.bin", "deep/config.json")) == [0.0, 0.5]


def test_a_touched_file_with_the_same_bytes_passes(folder: Path) -> None:
    files = registered(folder, "model.bin")
    os.utime(folder / "model.bin", (1, 1))
    check(folder, files)


@pytest.mark.parametrize("bytes_now", [b"WEIGHTS", b"longer weights", b""])
def test_other_bytes_are_refused(folder: Path, bytes_now: bytes) -> None:
    files = registered(folder, "model.bin")
    (folder / "model.bin").write_bytes(bytes_now)
    os.utime(folder / "model.bin", ns=(files[0].mtime_ns, files[0].mtime_ns))
    with pytest.raises(ArtifactChanged, match=r"echo-v1: the file model\.bin is not the one that was registered"):
        check(folder, files)


def test_a_missing_file_is_refused(folder: Path) -> None:
    files = registered(folder, "model.bin")
    (folder / "model.bin").unlink()
    with pytest.raises(ArtifactChanged, match=r"model\.bin, which cannot be read now \(No such file"):
        check(folder, files)


def test_a_link_in_a_files_place_is_refused(folder: Path) -> None:
    files = registered(folder, "model.bin")
    (folder / "model.bin").rename(folder / "elsewhere")
    (folder / "model.bin").symlink_to(folder / "elsewhere")
    with pytest.raises(ArtifactChanged, match=r"model\.bin, which cannot be read now"):
        check(folder, files)
