"""Lists the versions of each lineage, or of one, with who was live when."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db.models import Prefetch

from modelhub.lifecycle.observed import loader_view
from modelhub.management.deciding import refusals_told
from modelhub.management.lineages import facts_of, history_of, print_history, print_versions
from modelhub.management.operating import lineage_named, print_json
from modelhub.registry.models import Alias, Model, ModelVersion

_COLUMNS = (
    "model_id", "version", "status", "observed_at", "rolled_back_at", "rolled_back_reason", "lineage_id",
)  # fmt: skip

SHOWN_PERIODS = 50


class Command(BaseCommand):
    help = (
        "Lists lineages with their versions and the names that lead to them; of one lineage also who was live when, "
        "why and by whom. Exit status: 0, or 1 when no lineage has that name."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("lineage", nargs="?", metavar="LINEAGE", help="Only this one, with its history.")
        parser.add_argument(
            "--limit", type=_count, default=SHOWN_PERIODS, metavar="N", help="Periods of the history, the newest."
        )
        parser.add_argument("--json", action="store_true", dest="as_json", help="Print JSON.")

    def handle(self, *args: Any, **options: Any) -> None:
        lineages = Model.objects.order_by("name").prefetch_related(
            Prefetch(
                "aliases", Alias.objects.select_related("version").only("name", "lineage_id", "version__model_id")
            ),
            Prefetch("versions", ModelVersion.objects.only(*_COLUMNS)),
        )
        loader = loader_view()
        if options["lineage"] is None:
            told = [facts_of(lineage, loader) for lineage in lineages]
            if options["as_json"]:
                print_json(self, told)
            else:
                print_versions(self, told)
            return
        with refusals_told():
            lineage = lineages.get(pk=lineage_named(options["lineage"]).pk)
        facts = {**facts_of(lineage, loader), "history": history_of(lineage, options["limit"])}
        if options["as_json"]:
            print_json(self, facts)
            return
        print_versions(self, [facts])
        self.stdout.write("")
        if facts["history"]:
            print_history(self, facts["history"])
        else:
            self.stdout.write("No version was live yet.")


def _count(text: str) -> int:
    """argparse's type for a number from 1 on."""
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{count} is less than 1")
    return count
