"""Names of uploaded files: made into paths below one folder, or refused. Nothing here touches the disk."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence

from modelhub.registry.artifacts import Refused, check_path

_DRIVE = re.compile(r"[A-Za-z]:")
_MAX_NAME_BYTES = 255
# What systems add to archives by themselves; it is left out in silence.
_ADDED = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})


def is_added(path: str) -> bool:
    """Whether it is no file of anybody's, such as macOS' copies of attributes."""
    parts = path.rstrip("/").split("/")
    return parts[0] == "__MACOSX" or parts[-1] in _ADDED


def check_name(path: str) -> None:
    """Raises Refused for a path that could lead out of its folder, or that no store may hold."""
    if "\0" in path or "\\" in path:
        raise Refused(f"The name {path[:80]!a} has a backslash or a NUL; pack it with plain names and slashes.")
    if path.startswith("/") or _DRIVE.match(path):
        raise Refused(f"The path {path[:80]!a} is absolute; pack the model's folder with relative paths.")
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise Refused(f'The path {path[:80]!a} has an empty part, "." or ".."; pack the model\'s folder itself.')
    check_path(path)
    for part in path.split("/"):
        if len(os.fsencode(part)) > _MAX_NAME_BYTES:
            raise Refused(f"The name {part[:40]}… has more than {_MAX_NAME_BYTES} bytes; shorten it.")


def check_together(paths: Sequence[str]) -> None:
    """Raises Refused where two paths are one file on some disk: twice the same, or different in capitals or accents
    only, or one a file and the other a folder."""
    spelt: dict[str, str] = {}
    files: set[str] = set()
    folders: set[str] = set()
    for path in paths:
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            part = "/".join(parts[:depth])
            key = unicodedata.normalize("NFC", part).casefold()
            if spelt.setdefault(key, part) != part:
                raise Refused(
                    f"{spelt[key]} and {part} differ in capitals or accents only, and are one file on some disks; "
                    "rename one."
                )
            is_file = depth == len(parts)
            if is_file and key in files:
                raise Refused(f"{part} is there twice; leave one out.")
            if key in (folders if is_file else files):
                raise Refused(f"{part} is a file and a folder; rename one.")
            (files if is_file else folders).add(key)


def without_top(paths: Sequence[str]) -> tuple[list[str], str]:
    """The paths without the folders that all of them lie in, and the last such folder's name ("" for none).

    A zip of `<model_id>/…`, or of `<type>/<model_id>/…`, is what people make of a model's folder.
    """
    left, top = list(paths), ""
    while left and all("/" in path for path in left) and len({path.split("/", 1)[0] for path in left}) == 1:
        top = left[0].split("/", 1)[0]
        left = [path.split("/", 1)[1] for path in left]
    return left, top
