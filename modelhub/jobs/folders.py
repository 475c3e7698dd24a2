"""The files of a job: `<state folder>/jobs/<id>/` with `input`, `result` what grows; for this user alone."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modelhub.conf import config
from modelhub.private_dir import ensure_private_dir


def jobs_dir() -> Path:
    return config().MODELHUB_STATE_DIR / "jobs"


@dataclass(frozen=True, slots=True)
class JobFolder:
    """Named by the job's id and nothing that somebody sent."""

    id: uuid.UUID

    @property
    def path(self) -> Path:
        return jobs_dir() / str(self.id)

    @property
    def input(self) -> Path:
        return self.path / "input"

    @property
    def result(self) -> Path:
        return self.path / "result"

    def input_digest(self) -> str:
        """SHA-256 of the input, hexadecimal. Raises OSError."""
        with self.input.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def make(self) -> None:
        """Raises NotPrivate or OSError."""
        ensure_private_dir(jobs_dir())
        self.path.mkdir(mode=0o700)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    @contextlib.contextmanager
    def held(self) -> Iterator[bool]:
        """Whether nobody else works in it. The kernel lets go when this process dies. Raises OSError."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True
        finally:
            os.close(descriptor)


def strays(known: set[uuid.UUID], older_than_seconds: float) -> list[JobFolder]:
    """Folders of no job, of an age at which no upload is under way any more."""
    found = []
    with contextlib.suppress(OSError), os.scandir(jobs_dir()) as entries:
        for entry in entries:
            with contextlib.suppress(ValueError, OSError):
                folder = JobFolder(uuid.UUID(entry.name))
                newest = max([entry.stat().st_mtime, *(one.stat().st_mtime for one in folder.path.iterdir())])
                if folder.id not in known and newest < time.time() - older_than_seconds:
                    found.append(folder)
    return found
