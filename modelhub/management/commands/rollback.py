"""Makes an earlier version of a lineage live again, and waits until it is."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from loaderd.errors import StateForbids
from modelhub.lifecycle import planning
from modelhub.lifecycle.models import Operation
from modelhub.lifecycle.versions import previous_live, request_rollback
from modelhub.management.operating import lineage_named, registered
from modelhub.management.switching import SwitchCommand


class Command(SwitchCommand):
    help = (
        "Goes back to the version that was live before, or to the one named by --to; the one it leaves is marked. "
        "Exit status 1 when it could not; then nothing has changed."
    )

    def add_subjects(self, parser: CommandParser) -> None:
        parser.add_argument("subject", metavar="LINEAGE", help="Name of a lineage, as `manage.py versions` lists it.")
        parser.add_argument("--to", metavar="ID", help="Id of the version to go back to.")

    def request(self, subject: str, user: Any, options: dict[str, Any]) -> Operation:
        return request_rollback(
            lineage_named(subject),
            to=registered(options["to"]) if options["to"] else None,
            user=user,
            source="command",
            reason=options["reason"],
            allow_gap=options["allow_gap"],
        )

    def plan(self, subject: str, options: dict[str, Any]) -> dict[str, Any]:
        lineage = lineage_named(subject)
        target = registered(options["to"]) if options["to"] else previous_live(lineage)
        if target is None:
            raise StateForbids(f"No other version of {subject} was live before; name one with --to.", lineage=subject)
        plan = planning.plan_rollback(lineage, target, allow_gap=options["allow_gap"])
        return self.told_of_gap(plan, options)
