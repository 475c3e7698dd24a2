"""Sends a share of a lineage's requests, or a copy of them, to its candidate; shows both side by side."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import CommandParser

from modelhub.lifecycle import versions
from modelhub.management.deciding import DecisionCommand, refusals_told
from modelhub.management.lineages import print_traffic, traffic_of
from modelhub.management.operating import lineage_named, print_json, user_to_act_as


class Command(DecisionCommand):
    help = (
        "Shows where the requests for a lineage's name go, with latency, errors and disagreement of live and candidate "
        "side by side; with --candidate-percent or --shadow changes it. Exit status: 0 done, 1 refused, 2 wrong usage."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("lineage", metavar="LINEAGE", help="Name of a lineage.")
        parser.add_argument(
            "--candidate-percent", type=float, metavar="N", help="Share of the requests that `candidate` answers."
        )
        parser.add_argument(
            "--shadow",
            action=argparse.BooleanOptionalAction,
            default=None,
            help="Send `candidate` a copy of what `live` answers, or no longer.",
        )
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        user, percent, shadow = user_to_act_as(options["user"]), options["candidate_percent"], options["shadow"]
        with refusals_told():
            lineage = lineage_named(options["lineage"])
            if percent is not None or shadow is not None:
                lineage = versions.set_traffic(
                    lineage, candidate_percent=percent, shadow=shadow, user=user, reason=options["reason"]
                )
        told = traffic_of(lineage)
        if options["as_json"]:
            print_json(self, told)
        else:
            print_traffic(self, told)
