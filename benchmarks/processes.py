"""The processes of one server: found by a mark in their environment and by descent; their memory and processor time."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MARK = "BENCH_RUN"
_TICKS = os.sysconf("SC_CLK_TCK")
_TERM_SECONDS = 12.0
_KILL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Memory:
    """Of several processes together. uss: pages of their own; pss: shared pages divided by those who share them."""

    uss_mb: int
    pss_mb: int
    processes: int


def of(mark: str) -> list[int]:
    """The pids of every process that was started with `BENCH_RUN=mark`, and of all that descend from one; sorted."""
    wanted, parents, found = f"{MARK}={mark}".encode(), {}, set()
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            parents[int(entry)] = int(_fields(int(entry))[1])
            if wanted in Path("/proc", entry, "environ").read_bytes().split(b"\0"):
                found.add(int(entry))
        except OSError:
            continue
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)


def memory(pids: Iterable[int]) -> Memory:
    uss = pss = count = 0
    for pid in pids:
        try:
            text = Path("/proc", str(pid), "smaps_rollup").read_text()
        except OSError:
            continue
        fields = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines() if line.endswith("kB")}
        if fields:
            count += 1
            uss += fields["Private_Clean"] + fields["Private_Dirty"]
            pss += fields["Pss"]
    return Memory(round(uss / 1024), round(pss / 1024), count)


def cpu_seconds(pids: Iterable[int]) -> float:
    """Used so far by those of them that live."""
    total = 0
    for pid in pids:
        try:
            fields = _fields(pid)
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def machine_busy_seconds() -> float:
    """For which the cores of this machine have been busy, what a hypervisor took included."""
    values = [int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return (values[0] + values[1] + values[2] + values[5] + values[6] + values[7]) / _TICKS


def end(mark: str) -> None:
    """Ends the tree: SIGTERM to the oldest, then SIGKILL to what is left. Touches marked processes only."""
    alive = of(mark)
    if alive:
        _send(alive[0], signal.SIGTERM)
    _wait_until_gone(mark, _TERM_SECONDS)
    for pid in of(mark):
        _send(pid, signal.SIGKILL)
    _wait_until_gone(mark, _KILL_SECONDS)


def end_on_sigterm() -> None:
    """A benchmark that is told to end still ends its servers."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def _wait_until_gone(mark: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and of(mark):
        time.sleep(0.1)


def _send(pid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)


def _fields(pid: int) -> list[str]:
    """Of /proc/<pid>/stat after the name, which may hold blanks: [0] state, [1] parent, [11] user, [12] system time."""
    return Path("/proc", str(pid), "stat").read_text().rsplit(")", 1)[1].split()
