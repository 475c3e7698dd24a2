"""docs/performance.md: prose that people write, around blocks that the benchmarks write."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks import places


class NoSuchBlock(ValueError):
    """The document lacks the two comments between which the block belongs."""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """In Markdown; the first column to the left, the others to the right."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|--:" * (len(head) - 1) + "|"]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def replace_block(text: str, name: str, content: str) -> str:
    """The document with the block's content exchanged. Raises NoSuchBlock."""
    begin, end = f"<!-- {name}: written by the benchmark -->", f"<!-- {name}: end -->"
    pattern = re.compile(re.escape(begin) + r".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(text):
        raise NoSuchBlock(f"There is no block {begin!r} … {end!r} in the document.")
    return pattern.sub(lambda _: f"{begin}\n\n{content.strip()}\n\n{end}", text, count=1)


def write_block(document: Path, name: str, content: str) -> None:
    """Into docs/performance.md, or into a copy of it, which is made when it is not there."""
    if not document.exists():
        document.write_text(places.DOCUMENT.read_text())
    document.write_text(replace_block(document.read_text(), name, content))


def add_argument(parser: argparse.ArgumentParser) -> None:
    said = "Where tables and pictures go; a copy of docs/performance.md is made when it is not there."
    parser.add_argument("--document", type=Path, default=places.DOCUMENT, help=said)
