from __future__ import annotations

import pytest

from benchmarks import places
from benchmarks.document import NoSuchBlock, replace_block, table

TEXT = "# P\n\n<!-- a: written by the benchmark -->\n\nold\n\n<!-- a: end -->\n\nprose\n"


def test_a_block_is_exchanged_and_the_prose_stays() -> None:
    changed = replace_block(TEXT, "a", "| new \\1 |")
    assert "old" not in changed
    assert "| new \\1 |" in changed
    assert changed.startswith("# P")
    assert changed.endswith("prose\n")
    assert replace_block(changed, "a", "| new \\1 |") == changed


def test_a_block_that_is_missing_is_named() -> None:
    with pytest.raises(NoSuchBlock, match="b: written"):
        replace_block(TEXT, "b", "x")


def test_cells_cannot_break_a_table() -> None:
    assert table(["a", "b"], [("x|y", 1)]).splitlines() == ["| a | b |", "|---|--:|", "| x\\|y | 1 |"]


@pytest.mark.parametrize("name", ["bench-peers", "bench", "kept", "curves", "mixed"])
def test_the_document_has_every_block_that_a_benchmark_writes(name: str) -> None:
    assert replace_block(places.DOCUMENT.read_text(), name, "x")
