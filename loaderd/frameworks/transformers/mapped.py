"""Weights that are read once and laid out anew need not stay mapped from their file."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

MADV_DONTNEED = 4  # of Linux
MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+)\s+(.*)$")


def let_go(directory: Path) -> int:
    """Gives back the memory of pages that are mapped from files in `directory` and were never written to.

    They stay mapped: what is still used of them is read again from the file's cache at its next use. Returns the bytes
    that were given back; 0 where the system does not tell its mappings.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    given_back = 0
    for start, end, resident in _clean_mappings(directory.resolve()):
        if libc.madvise(start, end - start, MADV_DONTNEED) == 0:
            given_back += resident
    return given_back


def _clean_mappings(directory: Path) -> list[tuple[int, int, int]]:
    """(start, end, resident bytes) of the private mappings of files in the directory that hold no changed page."""
    found = []
    for mapping, facts in _mappings():
        if "p" not in mapping[3] or not Path(mapping[5]).is_relative_to(directory):
            continue
        if not facts.get("Anonymous", 0):  # pages that this process changed; "dirty" ones are the file's own
            found.append((int(mapping[1], 16), int(mapping[2], 16), facts.get("Rss", 0)))
    return found


def _mappings() -> list[tuple[re.Match[str], dict[str, int]]]:
    """Each mapping of this process and its figures in bytes."""
    found: list[tuple[re.Match[str], dict[str, int]]] = []
    try:
        lines = Path("/proc/self/smaps").read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        if mapping := MAPPING.match(line):
            found.append((mapping, {}))
        elif found and line.endswith(" kB"):
            name, _, amount = line.partition(":")
            found[-1][1][name] = int(amount.split()[0]) * 1024
    return found
