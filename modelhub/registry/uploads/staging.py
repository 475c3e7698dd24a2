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
        """What was kept beside the files. Raises NoSuchUpload."""
        try:
            kept: dict[str, Any] = json.loads((self.folder / "upload.json").read_text())
        except OSError as error:
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


def create() -> Staging:
    """A new, empty one. Raises NotPrivate, OSError."""
    ensure_private_dir(uploads_dir())
    staging = Staging(secrets.token_hex(16))
    for folder in (staging.folder, staging.incoming, staging.store):
        folder.mkdir(mode=0o755)
    return staging


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


def purge(older_than_seconds: float) -> int:
    """Throws away what nobody has touched for so long; returns how many there were."""
    try:
        tokens = [entry.name for entry in os.scandir(uploads_dir()) if _TOKEN.fullmatch(entry.name)]
    except OSError:
        return 0
    _remove_half_copies(tokens)
    return sum(_thrown_away(Staging(token), time.time() - older_than_seconds) for token in tokens)


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
