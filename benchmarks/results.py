"""What was measured, as JSON lines: one a run, appended at once, so that a stopped benchmark is not lost."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.driving import Run


@dataclass(frozen=True, slots=True)
class LoadRow:
    """One run against one peer. round: which time around; runs of one round at one concurrency were made one after the
    other, peer by peer.

    failed: a sentence when there is no run. machine, version: where it was measured, and which Modelhub:
    see setting.py.
    """

    peer: str
    model: str
    connections: int
    round: int
    run: Run | None
    uss_mb: int = 0
    pss_mb: int = 0
    processes: int = 0
    failed: str = ""
    at: str = ""
    machine: str = ""
    version: str = ""


def append(file: Path, row: LoadRow) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as out:
        out.write(json.dumps(asdict(row)) + "\n")


def read(file: Path) -> list[LoadRow]:
    """Nothing when there is no file yet."""
    return list(parsed(file.read_text().splitlines())) if file.exists() else []


def of_newest_setting(rows: Iterable[LoadRow]) -> list[LoadRow]:
    """Those of the machine and the version that were measured last: figures of others are no part of one table."""
    found = list(rows)
    return [row for row in found if (row.machine, row.version) == (found[-1].machine, found[-1].version)]


def parsed(lines: Iterable[str]) -> Iterable[LoadRow]:
    for line in lines:
        if line.strip():
            values = json.loads(line)
            run = values.pop("run")
            yield LoadRow(**values, run=Run(**run) if run else None)
