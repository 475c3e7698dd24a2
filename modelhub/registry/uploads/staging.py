"""Staging folders: one for each upload, in the state folder, until it is moved to the store or thrown away."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelhub.conf import config
from modelhub.private_dir import ensure_private_dir
from modelhub.registry.artifacts import Refused

SPARE_BYTES = 256 << 20  # stays free on a disk that uploads are written to: the database may live there too
RECHECK_BYTES = 4 << 20  # written between two looks at what is left of it
MAX_OPEN = 3  # uploads that one person may have: each may fill a good part of a disk
_GRACE_SECONDS = 60.0  # from the making of a staging folder until it is held

HALF_COPY = ".uploading-"  # and the token: an upload on its way to a store on another disk; discovery passes it over

_TOKEN = re.compile(r"[0-9a-f]{32}")


class NoSuchUpload(Exception):
    """There is no upload of this token: it was thrown away, or moved to the store already."""


def uploads_dir() -> Path:
    return config().MODELHUB_STATE_DIR / "uploads"


@dataclass(frozen=True, slots=True)
class Staging:
    """`incoming/` has the files as they came, `store/<type>/<model_id>/` the model as it would lie in the store."""

    token: str

    @property
    def folder(self) -> Path:
        return uploads_dir() / self.token

    @property
    def incoming(self) -> Path:
        return self.folder / "incoming"

    @property
    def store(self) -> Path:
        """A store of its own with this one model, for the same look at it that discovery takes."""
        return self.folder / "store"

    def note(self) -> dict[str, Any]:
        """What was kept beside the files. Raises NoSuchUpload, also where a machine that died left half of it."""
        try:
            kept: dict[str, Any] = json.loads((self.folder / "upload.json").read_text())
        except (OSError, ValueError) as error:
            raise NoSuchUpload(self.token) from error
        return kept

    def keep_note(self, note: dict[str, Any]) -> None:
        fresh = self.folder / "upload.json.new"
        fresh.write_text(json.dumps(note))
        fresh.rename(self.folder / "upload.json")

    @contextmanager
    def held(self) -> Iterator[None]:
        """While somebody works with it nobody else does, and it is not thrown away. Raises NoSuchUpload."""
        try:
            descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise NoSuchUpload(self.token) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not self.folder.is_dir():  # removed by whoever held it before
                raise NoSuchUpload(self.token)
            yield
        finally:
            os.close(descriptor)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def create(user_id: int | None = None) -> Staging:
    """A new, empty one. Raises NotPrivate, OSError, and Refused for somebody who has MAX_OPEN already.

    user_id: whose it is; None: nobody's, and then nothing is counted.
    """
    ensure_private_dir(uploads_dir())
    staging = Staging(secrets.token_hex(16))
    with _counted_alone():
        if user_id is not None and len(open_of(user_id)) >= MAX_OPEN:
            raise Refused(
                f"{MAX_OPEN} uploads of yours are open already. Open this page again: it lists them; register one or "
                f"throw it away. What nobody confirms goes after {config().UPLOAD_KEPT_MINUTES} minutes."
            )
        for folder in (staging.folder, staging.incoming, staging.store):
            folder.mkdir(mode=0o755)
        if user_id is not None:
            staging.keep_note({"user": user_id})
    return staging


def open_of(user_id: int) -> list[Staging]:
    """The uploads of this user: those that wait to be confirmed, and those that are on their way.

    What a process left that was killed while it received one is thrown away.
    """
    try:
        tokens = _tokens()
    except OSError:
        return []
    found = []
    for staging in map(Staging, sorted(tokens)):
        try:
            note = staging.note()
        except NoSuchUpload:
            continue
        if note.get("user") != user_id:
            continue
        if "inspection" not in note and _thrown_away(staging, time.time() - _GRACE_SECONDS):
            continue
        found.append(staging)
    return found


@contextmanager
def _counted_alone() -> Iterator[None]:
    """Two uploads that come at once do not both find the last place."""
    descriptor = os.open(uploads_dir(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def staged(token: str) -> Staging:
    """The upload of that token. Raises NoSuchUpload."""
    staging = Staging(token)
    if not _TOKEN.fullmatch(token) or not staging.folder.is_dir():
        raise NoSuchUpload(token)
    return staging


def check_space(folder: Path, wanted_bytes: int) -> None:
    """Raises Refused where the disk of `folder` would be left with less than SPARE_BYTES."""
    free = shutil.disk_usage(folder).free
    if wanted_bytes + SPARE_BYTES > free:
        raise Refused(
            f"It needs {wanted_bytes >> 20} MiB in {folder} and {max(0, free - SPARE_BYTES) >> 20} MiB may be used "
            f"there ({SPARE_BYTES >> 20} MiB are kept free); make room on that disk, then try again."
        )


class Room:
    """What is left of the disk of a folder, looked at again while it is written to: others write there too."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._unchecked_bytes = 0

    def take(self, size_bytes: int) -> None:
        """Before so much is written. Raises Refused where less than SPARE_BYTES would be left."""
        self._unchecked_bytes += size_bytes
        if self._unchecked_bytes < RECHECK_BYTES:
            return
        self._unchecked_bytes = 0
        if shutil.disk_usage(self._folder).free < SPARE_BYTES + size_bytes:
            raise Refused(
                f"The disk of {self._folder} filled up meanwhile ({SPARE_BYTES >> 20} MiB are kept free); make room "
                "on that disk, or wait for other uploads to end, then send it again."
            )


def purge(older_than_seconds: float) -> int:
    """Throws away what nobody has touched for so long; returns how many there were."""
    try:
        tokens = _tokens()
    except OSError:
        return 0
    _remove_half_copies(tokens)
    return sum(_thrown_away(Staging(token), time.time() - older_than_seconds) for token in tokens)


def _tokens() -> list[str]:
    """Raises OSError."""
    with os.scandir(uploads_dir()) as entries:
        return [entry.name for entry in entries if _TOKEN.fullmatch(entry.name)]


def _thrown_away(staging: Staging, before: float) -> bool:
    try:
        descriptor = os.open(staging.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _touched_at(staging) >= before:
            return False
        staging.remove()
        return True
    except OSError:  # held by somebody who works with it
        return False
    finally:
        os.close(descriptor)


def _remove_half_copies(tokens: Collection[str]) -> None:
    """What a process left in the store that was killed while it copied an upload there."""
    for left in config().MODELS_DIR.glob(f"*/{HALF_COPY}*"):
        if left.name.removeprefix(HALF_COPY) not in tokens:
            shutil.rmtree(left, ignore_errors=True)


def _touched_at(staging: Staging) -> float:
    places = (staging.folder, staging.incoming, staging.folder / "upload.json")
    return max((place.stat().st_mtime for place in places if place.exists()), default=0.0)
