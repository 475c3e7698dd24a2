"""Where and what is measured: figures of another machine, or of other code of ours, do not belong into one table."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

import loaderd
from benchmarks import places

CODE = ("loaderd", "modelhub")


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


@functools.cache
def machine() -> str:
    return f"{os.cpu_count()} cores ({processor()}), {memory_gb():.0f} GB"


@functools.cache
def version() -> str:
    """The release, and a digest of the code as it lies there: each change of it is another version."""
    digest = hashlib.sha256()
    for folder in CODE:
        for file in sorted((places.PROJECT_DIR / folder).rglob("*.py")):
            digest.update(file.relative_to(places.PROJECT_DIR).as_posix().encode())
            digest.update(file.read_bytes())
    return f"{loaderd.__version__}+{digest.hexdigest()[:8]}"
