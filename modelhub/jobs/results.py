"""Where a result grows: a part file beside it that can be gone on with, put in its place when every row is there."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import BinaryIO

from modelhub.jobs.formats import PARQUET


class PartFile:
    """`path` is the result; `part` grows beside it. mode: of both, less what the umask takes."""

    def __init__(self, path: Path, mode: int = 0o600) -> None:
        self.path, self._mode = path, mode
        self.part = path.with_name(path.name + ".part")
        self._file: BinaryIO | None = None

    def open(self, written: int) -> None:
        """To go on behind the first `written` bytes; what lies there is dropped. Raises OSError."""
        descriptor = os.open(self.part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, self._mode)
        self._file = os.fdopen(descriptor, "r+b")
        if self._file.seek(0, os.SEEK_END) < written:
            self._file.close()
            raise OSError(f"{self.part} is shorter than it was; remove it and begin anew")
        self._file.truncate(written)
        self._file.seek(written)

    def write(self, data: bytes) -> None:
        assert self._file is not None
        self._file.write(data)

    def sync(self) -> int:
        """The bytes that survive from now on. Raises OSError."""
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def put_in_place(self, kind: str) -> None:
        """Makes the result of the part; whole or not at all. May be called again after a crash. Raises OSError."""
        self.close()
        if not self.part.exists() and self.path.exists():
            return  # it was, before the crash
        if kind == PARQUET:
            from modelhub.jobs.formats.parquet_rows import make_parquet

            whole = self.path.with_name(self.path.name + ".whole")
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            with os.fdopen(os.open(whole, flags, self._mode), "wb") as target:
                make_parquet(self.part, target)
                target.flush()
                os.fsync(target.fileno())
            os.replace(whole, self.path)
            self.part.unlink()
        else:
            os.replace(self.part, self.path)
        _sync_folder(self.path.parent)

    def remove(self) -> None:
        """The part, and what else was begun; never the result."""
        self.close()
        for left in (self.part, self.path.with_name(self.path.name + ".whole")):
            left.unlink(missing_ok=True)

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # what could not be written was told of already
                self._file.close()
            self._file = None


class Stream:
    """A result that goes to a pipe: nothing of it can be gone on with."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target

    def open(self, written: int) -> None:
        """There is nothing to open."""

    def write(self, data: bytes) -> None:
        self._target.write(data)

    def sync(self) -> int:
        self._target.flush()
        return 0

    def put_in_place(self, kind: str) -> None:
        self._target.flush()

    def close(self) -> None:
        """It belongs to who opened it."""


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
