"""Forgets the answers that the response cache keeps."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from modelhub.lifecycle.kept_answers import clear_cache
from modelhub.management.deciding import refusals_told
from modelhub.management.operating import print_json, registered, user_to_act_as


class Command(BaseCommand):
    help = (
        "Forgets the answers that the response cache keeps of a model (`clear_cache ID`), or of all (`clear_cache "
        "--all`). They are computed again when they are asked for. Exit status: 0 done, 1 refused, 2 wrong usage."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("model_id", nargs="?", metavar="ID", help="Id of a model, as `manage.py models` lists it.")
        parser.add_argument("--all", action="store_true", help="Of all models.")
        parser.add_argument("--user", help="User to act as; without: the operator of this machine.")
        parser.add_argument("--json", action="store_true", dest="as_json", help="Print JSON.")

    def handle(self, *args: Any, **options: Any) -> None:
        if bool(options["model_id"]) == options["all"]:
            raise CommandError("Of which model? `clear_cache ID`, or `clear_cache --all`.", returncode=2)
        user = user_to_act_as(options["user"])
        with refusals_told():
            cleared = clear_cache(None if options["all"] else registered(options["model_id"]), user=user)
        if options["as_json"]:
            print_json(self, cleared)
        else:
            count = cleared["forgotten"]
            self.stdout.write(f"{cleared['model_id'] or 'all models'}: {count} kept answers forgotten")
