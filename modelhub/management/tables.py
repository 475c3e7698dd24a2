"""Tables on the terminal and in pipes, and how sizes and times are written in them."""

from __future__ import annotations

from datetime import datetime

from django.core.management.base import BaseCommand
from rich.console import Console
from rich.table import Table


def in_units(size_bytes: int) -> str:
    """In binary units: "512 bytes", "3.1 KiB", "210 MiB", "1.2 GiB"."""
    size, unit = float(size_bytes), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(size) < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.1f}".removesuffix(".0") + f" {unit}"


def at_second(at: datetime) -> str:
    """A moment as it is kept: in UTC."""
    return f"{at:%Y-%m-%d %H:%M:%S %Z}"


def print_table(command: BaseCommand, table: Table) -> None:
    """Prints to the command's output; a pipe has no width, so nothing is folded for it."""
    stream = command.stdout._out
    console = Console(file=stream)
    if not console.is_terminal:
        console = Console(file=stream, width=10_000)
    console.print(table)
