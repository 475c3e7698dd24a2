from __future__ import annotations

from pathlib import Path

from benchmarks import results
from tests.benchmarks.rows import row, run


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "bench" / "peers.jsonl"
    rows = [row("fastapi", run(1000.5, errors=1)), row("torchserve", None, failed="no Java")]
    for each in rows:
        results.append(file, each)
    assert results.read(file) == rows
