"""Shows the settings that change at run time, and changes them."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.markup import escape
from rich.table import Table

from modelhub.management.operating import print_json, user_to_act_as
from modelhub.management.tables import print_table
from modelhub.policy.effective import change
from modelhub.policy.models import OVERRIDABLE
from modelhub.policy.settings import settings_in_force


class Command(BaseCommand):
    help = (
        "Shows the settings that change at run time; NAME=VALUE overrides one within a second and without a restart, "
        "NAME= takes the override back. Exit status: 0, 1 refused, 2 wrong usage."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("changes", nargs="*", metavar="NAME=VALUE", help="A setting and its value; NAME= for none.")
        parser.add_argument("--user", help="User to act as; without: the operator of this machine.")
        parser.add_argument("--json", action="store_true", dest="as_json", help="Print JSON.")

    def handle(self, *args: Any, **options: Any) -> None:
        values = dict(_parsed(text) for text in options["changes"])
        user = user_to_act_as(options["user"])
        if values:
            if user is not None and not user.has_perm("policy.change_policy"):
                raise CommandError(f"{user} lacks the permission policy.change_policy.", returncode=1)
            try:
                change(values, user=user)
            except ValidationError as error:
                lines = [f"{name.upper()}: {' '.join(told)}" for name, told in error.message_dict.items()]
                raise CommandError("\n".join(lines), returncode=1) from error
        told = [setting for setting in settings_in_force() if not values or setting["name"] in values]
        if options["as_json"]:
            print_json(self, told)
            return
        table = Table(box=None, pad_edge=False)
        for heading in ("setting", "in force", "environment", "override"):
            table.add_column(heading, overflow="fold")
        for setting in told:
            override = "" if setting["override"] is None else str(setting["override"])
            table.add_row(setting["name"], *map(escape, (str(setting["value"]), str(setting["environment"]), override)))
        print_table(self, table)


def _parsed(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise CommandError(f"{text!r} is no NAME=VALUE.", returncode=2)
    if name.upper() not in OVERRIDABLE:
        raise CommandError(
            f"{name!r} is no setting that changes at run time; those are {', '.join(OVERRIDABLE)}.", returncode=2
        )
    return name.upper(), value
