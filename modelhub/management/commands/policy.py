"""Shows the settings that change at run time, and changes them."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.markup import escape
from rich.table import Table

from modelhub.lifecycle.observed import LoaderView, loader_view
from modelhub.lifecycle.settings import ENVIRONMENT, own_environment, settings_in_force
from modelhub.management.operating import print_json, user_to_act_as
from modelhub.management.tables import at_second, print_table
from modelhub.policy.effective import change
from modelhub.policy.models import OVERRIDABLE

FOLLOW_SECONDS = 3.0  # loaderd works by a change within a second, and tells a second later at most
LOOK_SECONDS = 0.1


class Command(BaseCommand):
    help = (
        "Shows the settings that change at run time as loaderd works by them, and where each comes from; NAME=VALUE "
        "overrides one within a second and without a restart, NAME= takes the override back. Exit status: 0, 1 "
        "refused, 2 wrong usage."
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
        loader, told = _told(values or OVERRIDABLE, FOLLOW_SECONDS if values else 0.0)
        if options["as_json"]:
            print_json(self, told)
            return
        table = Table(box=None, pad_edge=False)
        for heading in ("setting", "in force", "from", "without the policy", "policy"):
            table.add_column(heading, overflow="fold")
        for setting in told:
            override = "" if setting["override"] is None else str(setting["override"])
            cells = (_in_force(setting), setting["source"], str(setting["environment"]), override)
            table.add_row(setting["name"], *map(escape, cells))
        print_table(self, table)
        self.stdout.write(_whose_word(loader))
        not_loaderds = [setting["name"] for setting in told if setting["observed"] is None]
        if not_loaderds and loader.observed_at is not None:
            self.stdout.write(f"No part of what loaderd tells, so as the policy says: {', '.join(not_loaderds)}.")
        self._warn_of_own_environment(loader)

    def _warn_of_own_environment(self, loader: LoaderView) -> None:
        running = loader.facts.get(ENVIRONMENT)
        if running is None:
            return
        idle = [f"{name}={value}" for name, value in own_environment().items() if running.get(name) != value]
        if idle:
            self.stderr.write(
                f"The environment of this command says {', '.join(idle)}; what runs was started with another one, so "
                "that counts for nothing here."
            )


def _told(names: Collection[str], patience_seconds: float) -> tuple[LoaderView, list[dict[str, Any]]]:
    """loaderd, and what is told of these settings, when loaderd works by them or the patience is at its end."""
    deadline = time.monotonic() + patience_seconds
    while True:
        loader = loader_view()
        told = [setting for setting in settings_in_force(loader) if setting["name"] in names]
        if not loader.reachable or time.monotonic() >= deadline or all(map(_is_followed, told)):
            return loader, told
        time.sleep(LOOK_SECONDS)


def _is_followed(setting: dict[str, Any]) -> bool:
    return setting["observed"] is None or setting["observed"] == setting["value"]


def _in_force(setting: dict[str, Any]) -> str:
    if _is_followed(setting):
        return str(setting["value"])
    return f"{setting['observed']}, not yet {setting['value']}"


def _whose_word(loader: LoaderView) -> str:
    if loader.observed_at is None:
        return "loaderd has never run; until it does, the environment of this command counts as its."
    if not loader.reachable:
        return f"loaderd is away ({loader.why_unreachable()}); this was in force then."
    return f"In force as loaderd told at {at_second(loader.observed_at)}."


def _parsed(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise CommandError(f"{text!r} is no NAME=VALUE.", returncode=2)
    if name.upper() not in OVERRIDABLE:
        raise CommandError(
            f"{name!r} is no setting that changes at run time; those are {', '.join(OVERRIDABLE)}.", returncode=2
        )
    return name.upper(), value
