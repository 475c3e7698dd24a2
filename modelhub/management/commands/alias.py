"""Lets a name lead to a version of a lineage, or takes the name away."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from modelhub.lifecycle import versions
from modelhub.management.deciding import DecisionCommand, refusals_told
from modelhub.management.operating import lineage_named, print_json, registered, user_to_act_as


class Command(DecisionCommand):
    help = (
        "Lets a name such as `candidate` lead to a version of a lineage, or takes it away. Not `live`: activate a "
        "version, or roll back. Exit status: 0 done, 1 refused, 2 wrong usage."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("lineage", metavar="LINEAGE", help="Name of a lineage.")
        parser.add_argument("name", metavar="NAME", help="candidate, or a name of your own.")
        parser.add_argument("model_id", nargs="?", metavar="ID", help="Id of a version of this lineage.")
        parser.add_argument("--remove", action="store_true", help="Take the name away.")
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if bool(options["model_id"]) == options["remove"]:
            raise CommandError("Name a version, or say --remove: one of them.", returncode=2)
        user, name, reason = user_to_act_as(options["user"]), options["name"], options["reason"]
        with refusals_told():
            lineage = lineage_named(options["lineage"])
            if options["remove"]:
                versions.remove_alias(lineage, name, user=user, reason=reason)
            else:
                versions.set_alias(lineage, name, registered(options["model_id"]), user=user, reason=reason)
        if options["as_json"]:
            print_json(self, {"lineage": lineage.name, "alias": name, "model_id": options["model_id"]})
        elif options["remove"]:
            self.stdout.write(f"{lineage.name}/{name}: removed")
        else:
            self.stdout.write(f"{lineage.name}/{name}: leads to {options['model_id']}")
