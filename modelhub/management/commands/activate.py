"""Makes a version the live one of its lineage, and waits until it is."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from modelhub.lifecycle import planning
from modelhub.lifecycle.models import Operation
from modelhub.lifecycle.versions import request_activate
from modelhub.management.operating import registered
from modelhub.management.switching import SwitchCommand


class Command(SwitchCommand):
    help = (
        "Makes a version the live one: loads it beside the one that is live, moves the name, then unloads the other. "
        "Exit status 1 when it could not; then the other is live as before."
    )

    def add_subjects(self, parser: CommandParser) -> None:
        parser.add_argument("subject", metavar="ID", help="Id of a version, as `manage.py versions` lists it.")

    def request(self, subject: str, user: Any, options: dict[str, Any]) -> Operation:
        version, gap = registered(subject), options["allow_gap"]
        return request_activate(version, user=user, source="command", reason=options["reason"], allow_gap=gap)

    def plan(self, subject: str, options: dict[str, Any]) -> dict[str, Any]:
        plan = planning.plan_activate(registered(subject), allow_gap=options["allow_gap"])
        return self.told_of_gap(plan, options)
