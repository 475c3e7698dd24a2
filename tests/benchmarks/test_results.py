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


def test_there_is_nothing_before_the_first_run(tmp_path: Path) -> None:
    assert results.read(tmp_path / "peers.jsonl") == []


def test_rows_of_another_machine_or_of_other_code_are_no_part_of_the_newest_table() -> None:
    rows = [
        row("fastapi", run(1), machine="a", version="1"),
        row("fastapi", run(2), machine="b", version="2"),
        row("triton", run(3), machine="a", version="2"),
        row("fastapi", run(4), machine="a", version="2"),
    ]
    assert [each.run.requests_per_second for each in results.of_newest_setting(rows) if each.run] == [3, 4]
    assert results.of_newest_setting([]) == []
