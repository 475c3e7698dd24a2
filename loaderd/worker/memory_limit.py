"""A model's own memory limit, kept by the kernel."""

from __future__ import annotations

import resource
from pathlib import Path


def limit_memory(limit_bytes: int) -> None:
    """From now on this process may allocate `limit_bytes` on top of what it has (RLIMIT_DATA, Linux 4.7 or later).

    What passes the limit fails like any allocation: MemoryError in Python and numpy, an error in torch; code that
    does not expect it (std::bad_alloc) aborts, and the process dies. Counted is what may be written and is private,
    touched or not; files that are mapped read-only are not, and neither is a GPU's memory.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            limit = int(line.split()[1]) * 1024 + limit_bytes
            _, hard = resource.getrlimit(resource.RLIMIT_DATA)
            if hard != resource.RLIM_INFINITY:
                limit = min(limit, hard)
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
