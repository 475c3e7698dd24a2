"""Tables on the terminal and in pipes."""

from __future__ import annotations

from django.core.management.base import BaseCommand
from rich.console import Console
from rich.table import Table


def print_table(command: BaseCommand, table: Table) -> None:
    """Prints to the command's output; a pipe has no width, so nothing is folded for it."""
    stream = command.stdout._out
    console = Console(file=stream)
    if not console.is_terminal:
        console = Console(file=stream, width=10_000)
    console.print(table)
