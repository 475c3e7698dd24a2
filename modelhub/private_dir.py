"""Folders that nobody else may enter: whoever reaches the sockets in them may command loaderd."""

from __future__ import annotations

import os
import stat
from pathlib import Path


class NotPrivate(Exception):
    """The folder is missing and cannot be made, or is open to others; the message says what to do."""


def ensure_private_dir(path: Path) -> None:
    """Makes the folder (0700), or checks the one that is there; raises NotPrivate."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise NotPrivate(
            f"{path} cannot be made a private folder ({error.strerror}); move away what is there."
        ) from error
    if not stat.S_ISDIR(found.st_mode):
        raise NotPrivate(f"{path} is a link; it must be a folder of this user's own. Move it away and start again.")
    if found.st_uid != os.getuid():
        raise NotPrivate(
            f"{path} belongs to uid {found.st_uid}; run Modelhub as that user, or move the folder away and start again."
        )
    if found.st_mode & 0o077:
        raise NotPrivate(f"Others may enter {path}; look what they put there, then `chmod 700 {path}`.")
