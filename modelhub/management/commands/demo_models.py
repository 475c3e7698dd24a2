"""Makes the sample models: trains them here and writes them into the store."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from modelhub.conf import config
from samples.catalogue import SAMPLES, Sample, UnknownSample, sample
from samples.making import Outcome, kept, make_samples


class Command(BaseCommand):
    help = "Trains the sample models and writes them to MODELS_DIR/<type>/<model_id>/; those that exist are left alone."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--only", nargs="+", metavar="ID", help="Make only these.")
        parser.add_argument("--force", action="store_true", dest="is_forced", help="Make those again that exist.")
        parser.add_argument("--list", action="store_true", dest="is_list", help="Show which there are; make nothing.")
        parser.add_argument("--json", action="store_true", dest="as_json", help="Print the result as JSON.")

    def handle(self, *args: Any, **options: Any) -> None:
        store = config().MODELS_DIR
        try:
            wanted = [sample(model_id) for model_id in dict.fromkeys(options["only"] or ())] or list(SAMPLES)
        except UnknownSample as error:
            raise CommandError(str(error), returncode=2) from None
        if options["is_list"]:
            self._list(store, wanted, options["as_json"])
            return
        started = time.monotonic()
        outcomes = self._make(store, wanted, options["is_forced"], quiet=options["as_json"])
        if options["as_json"]:
            self.stdout.write(json.dumps([_told(store, outcome) for outcome in outcomes], indent=2))
        else:
            self._show(outcomes, time.monotonic() - started)
        failed = [outcome for outcome in outcomes if outcome.status == "failed"]
        for outcome in failed:
            self.stderr.write(self.style.ERROR(f"{outcome.model_id} was not made: {outcome.error}"))
        if failed:
            raise SystemExit(1)

    def _make(self, store: Path, wanted: list[Sample], is_forced: bool, quiet: bool) -> list[Outcome]:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(30), TaskProgressColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as progress:
            bars = {
                found.model_id: progress.add_task(found.model_id, total=1.0, start=False)
                for found in wanted
                if is_forced or not found.directory(store).exists()
            }

            def tell(model_id: str, share: float) -> None:
                progress.start_task(bars[model_id])
                progress.update(bars[model_id], completed=share)
                if share >= 1.0:
                    progress.stop_task(bars[model_id])

            try:
                store.mkdir(parents=True, exist_ok=True)
                return make_samples(store, wanted, force=is_forced, tell=tell)
            except OSError as error:
                raise CommandError(
                    f"Cannot write the sample models to {store}: {error.strerror}; "
                    "make it a folder that you may write to, or set MODELS_DIR."
                ) from error

    def _show(self, outcomes: list[Outcome], seconds: float) -> None:
        table = Table(title=f"Sample models, {seconds:.0f} s", title_justify="left")
        for heading in ("model", "", "accuracy", "majority class", "seconds"):
            table.add_column(heading, justify="left" if heading in ("model", "") else "right")
        for outcome in outcomes:
            measured = outcome.performance_metrics
            table.add_row(
                outcome.model_id,
                outcome.status,
                _share(measured.get("accuracy")),
                _share(measured.get("majority_class_accuracy")),
                "" if outcome.seconds is None else f"{outcome.seconds:.1f}",
            )
        self._console().print(table)

    def _list(self, store: Path, wanted: list[Sample], as_json: bool) -> None:
        rows: list[dict[str, Any]] = [
            {
                "model_id": found.model_id,
                "type": found.type,
                "framework": found.framework,
                "description": found.description,
                "is_in_store": found.directory(store).exists(),
                "performance_metrics": kept(store, found).performance_metrics,
            }
            for found in wanted
        ]
        if as_json:
            self.stdout.write(json.dumps(rows, indent=2))
            return
        table = Table(title=f"Sample models, store {store}", title_justify="left")
        for heading in ("model", "framework", "in store", "accuracy", "description"):
            table.add_column(heading, no_wrap=heading == "model")
        for row in rows:
            accuracy = _share(row["performance_metrics"].get("accuracy"))
            table.add_row(
                row["model_id"], row["framework"], "yes" if row["is_in_store"] else "no", accuracy, row["description"]
            )
        self._console().print(table)

    def _console(self) -> Console:
        return Console(file=self.stdout._out)


def _told(store: Path, outcome: Outcome) -> dict[str, Any]:
    return {**asdict(outcome), "path": str(sample(outcome.model_id).directory(store))}


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
