"""Forgets the canary that a model's first load recorded."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from modelhub.lifecycle.canaries import forget_canary
from modelhub.management.deciding import DecisionCommand, refusals_told
from modelhub.management.operating import print_json, registered, user_to_act_as


class Command(DecisionCommand):
    help = (
        "Forgets the canary that a model's first load recorded: its next load records a new one. For loads that fail "
        "with canary_failed although the new answer is right, as after an upgrade of a library. Exit status: 0 done, "
        "1 refused, 2 wrong usage."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("model_id", metavar="ID", help="Id of a model, as `manage.py models` lists it.")
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        user = user_to_act_as(options["user"])
        with refusals_told():
            forgotten = forget_canary(registered(options["model_id"]), user=user, reason=options["reason"])
        if options["as_json"]:
            print_json(self, forgotten)
        else:
            self.stdout.write(f"{forgotten['model_id']}: canary forgotten; the next load records a new one")
