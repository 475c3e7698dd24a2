"""What the kernel says of the product's processes: memory, descriptors, threads; which of them hold models."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import psutil

from loaderd.resources import memory_of
from tests.stack import Stack


@dataclass(frozen=True, slots=True)
class State:
    """Of one long-lived process. anonymous_bytes: what it has written. Pages of files are left out: they are private or
    not by who else maps the same libraries, another installation for example."""

    anonymous_bytes: int
    descriptors: int
    threads: int


def model_processes(loaderd: psutil.Process, not_models: set[int]) -> list[int]:
    """The pids that hold models: loaderd's children but for its gateway and its zygotes."""
    return [process.pid for process in loaderd.children() if process.pid not in not_models]


def long_lived(stack: Stack) -> dict[str, int]:
    """Name -> pid of what must not grow: loaderd, gateway, zygotes, web, queue."""
    loaderd = stack.loaderd()
    found = {"loaderd": loaderd.pid}
    for name, zygote in stack.loader_client().status()["facts"]["zygotes"].items():
        found[f"zygote {name}"] = zygote["pid"]
    for process in stack.family():
        words = process.info["cmdline"] or []
        line = " ".join(words)
        if "loaderd.gateway" in line:
            found["gateway"] = process.pid
        elif "gunicorn" in line:
            found[f"web {len([name for name in found if name.startswith('web')])}"] = process.pid
        elif words[-1:] == ["queue"]:
            found[f"queue {len([name for name in found if name.startswith('queue')])}"] = process.pid
    return found


def state_of(pid: int) -> State | None:
    with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        process = psutil.Process(pid)
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        anonymous_kib = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Anonymous:"))
        return State(anonymous_kib * 1024, process.num_fds(), process.num_threads())
    return None


def private_bytes(pids: list[int]) -> int:
    """Of all of them together, as /proc tells; one that ended meanwhile holds nothing."""
    found = (memory_of(pid) for pid in pids)
    return sum(memory.private_bytes for memory in found if memory is not None)


def sockets_below(folder: Path) -> int:
    return sum(path.is_socket() for path in folder.rglob("*"))
