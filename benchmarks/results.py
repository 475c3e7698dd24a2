"""What was measured, as JSON lines: one a run, appended at once, so that a stopped benchmark is not lost."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.driving import Run


@dataclass(frozen=True, slots=True)
class LoadRow:
    """One run against one peer. round: which time around; runs of one round were made one soon after the other.

    failed: a sentence when there is no run.
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


def append(file: Path, row: LoadRow) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as out:
        out.write(json.dumps(asdict(row)) + "\n")


def read(file: Path) -> list[LoadRow]:
    return list(parsed(file.read_text().splitlines()))


def parsed(lines: Iterable[str]) -> Iterable[LoadRow]:
    for line in lines:
        if line.strip():
            values = json.loads(line)
            run = values.pop("run")
            yield LoadRow(**values, run=Run(**run) if run else None)
