"""Looks through the store and writes what it finds into the registry."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from modelhub.actors import OPERATOR
from modelhub.management.operating import print_json
from modelhub.management.tables import print_table
from modelhub.registry.discovery import DiscoveryFailed, DiscoveryReport, discover


class Command(BaseCommand):
    help = (
        "Looks through MODELS_DIR for new, changed and gone models. Exit status: 0 everything found is registered, "
        "1 something was refused (the others are registered), 2 the store could not be looked through."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", dest="as_json", help="Print the report as JSON.")
        parser.add_argument("--actor", default=OPERATOR, help="Who asks, for the record; without: operator.")

    def handle(self, *args: Any, **options: Any) -> None:
        quiet = options["as_json"] or not self.stderr.isatty()
        columns = (TextColumn("Reading files"), BarColumn(30), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=Console(stderr=True), disable=quiet, transient=True) as progress:
            bar = progress.add_task("", visible=False)

            def show(done_bytes: int, total_bytes: int) -> None:
                progress.update(bar, completed=done_bytes, total=total_bytes, visible=True)

            try:
                report = discover(actor=options["actor"], progress=show)
            except DiscoveryFailed as failure:
                raise CommandError(str(failure), returncode=2) from failure
        if options["as_json"]:
            print_json(self, report.to_dict())
        else:
            self._tell(report)
        if report.refused:
            raise SystemExit(1)

    def _tell(self, report: DiscoveryReport) -> None:
        table = Table(box=None, pad_edge=False, show_header=False)
        for name, found in (
            ("new", report.new),
            ("changed", report.changed),
            ("gone", report.gone),
            ("returned", report.returned),
            ("changed while loaded", report.stale_in_memory),
        ):
            for model_id in found:
                table.add_row(name, escape(model_id), "")
        for path, reason in report.refused:
            table.add_row("[red]refused[/red]", escape(path), escape(reason))
        for note in report.notes:
            table.add_row("note", "", escape(note))
        if table.row_count:
            print_table(self, table)
        self.stdout.write(f"Discovery: {report.summary()}.")
