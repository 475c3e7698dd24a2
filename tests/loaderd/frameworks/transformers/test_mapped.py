"""Pages of files that were read once."""

from __future__ import annotations

import mmap
from pathlib import Path

from loaderd.frameworks.transformers.mapped import let_go

SIZE = 4 * 2**20


def test_pages_that_were_only_read_are_given_back_and_read_again(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"\x07" * SIZE)
    with (
        (tmp_path / "weights").open("rb") as file,
        mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ) as read,
    ):
        assert read[:].count(7) == SIZE
        assert let_go(tmp_path) == SIZE
        assert let_go(tmp_path) == 0
        assert read[:].count(7) == SIZE


def test_pages_that_were_changed_stay(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"\x07" * SIZE)
    with (tmp_path / "weights").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as changed:
        changed[5] = 1
        assert let_go(tmp_path) == 0
        assert changed[5] == 1


def test_files_elsewhere_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "other").write_bytes(b"\x07" * SIZE)
    with (tmp_path / "other").open("rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ) as read:
        assert read[:].count(7) == SIZE
        assert let_go(tmp_path / "mine") == 0
