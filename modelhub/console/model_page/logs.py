"""The end of a model's log, and what was written since: only new lines travel."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modelhub.conf import config

SHOWN_LINES = 200
MOST_BYTES = 256 * 1024  # that one answer carries
FOLDER = "models"


@dataclass(frozen=True, slots=True)
class Written:
    """A stretch of a log. at: "inode:offset", from where the next one is read. is_cut: lines before it are left out.

    is_new: the log began anew since the last look. at "" : there is no log.
    """

    lines: Sequence[str]
    at: str
    is_cut: bool = False
    is_new: bool = False


def log_path(model_id: str) -> Path | None:
    """Where the model's log lies; None for a name that leads out of the folder, through a link too."""
    root = (config().logs_dir / FOLDER).resolve()
    found = (root / f"{model_id}.log").resolve()
    return found if found.parent == root else None


def tail(model_id: str, lines: int = SHOWN_LINES) -> Written:
    """Its last whole lines."""
    opened = _open(model_id)
    if opened is None:
        return Written([], "")
    with os.fdopen(opened, "rb") as log:
        size = log.seek(0, os.SEEK_END)
        begin = max(0, size - MOST_BYTES)
        log.seek(begin)
        read = log.read(size - begin)
        whole = _whole(read)
        found = _lines(whole)
        is_cut = begin > 0 or len(found) > lines
        if begin and len(found) > 1:
            found = found[1:]  # the first is a part of one
        return Written(found[-lines:], _at(log.fileno(), begin + len(whole)), is_cut)


def since(model_id: str, at: str) -> Written:
    """The whole lines that were written after `at`; from the beginning when the log is another one by now."""
    opened = _open(model_id)
    if opened is None:
        return Written([], "")
    inode, _, stated = at.partition(":")
    with os.fdopen(opened, "rb") as log:
        status = os.fstat(log.fileno())
        offset = int(stated) if stated.isascii() and stated.isdecimal() and len(stated) < 18 else 0
        is_new = inode != str(status.st_ino) or offset > status.st_size
        begin = 0 if is_new else offset
        is_cut = status.st_size - begin > MOST_BYTES
        if is_cut:
            begin = status.st_size - MOST_BYTES
        log.seek(begin)
        whole = _whole(log.read(MOST_BYTES))
        found = _lines(whole)
        return Written(found[1:] if is_cut else found, _at(log.fileno(), begin + len(whole)), is_cut, is_new)


def _open(model_id: str) -> int | None:
    path = log_path(model_id)
    if path is None:
        return None
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None


def _at(descriptor: int, offset: int) -> str:
    return f"{os.fstat(descriptor).st_ino}:{offset}"


def _whole(read: bytes) -> bytes:
    """Up to the last line's end: what is being written is read when it is done. A line longer than a read is cut."""
    end = read.rfind(b"\n") + 1
    return read[:end] if end else read if len(read) >= MOST_BYTES else b""


def _lines(read: bytes) -> list[str]:
    return read.decode(errors="replace").replace("\0", "").splitlines()
