"""Lists what needs a person's eye, and says that somebody has seen it."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.markup import escape
from rich.table import Table

from modelhub.management.deciding import refusals_told
from modelhub.management.operating import print_json, user_to_act_as
from modelhub.management.tables import at_second, print_table
from modelhub.telemetry.alerts import acknowledge, alerts
from modelhub.telemetry.models import Alert

MAX_LISTED = 200


class Command(BaseCommand):
    help = (
        "Lists the alerts that are not resolved, newest first; --ack ID says that somebody has seen one. Exit status: "
        "0, or 1 when there is no such alert or it is resolved."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--ack", type=int, action="append", metavar="ID", default=[], help="Acknowledge this one.")
        parser.add_argument("--all", action="store_true", help="Resolved ones, too.")
        parser.add_argument("--user", help="User to act as; without: the operator of this machine.")
        parser.add_argument("--json", action="store_true", dest="as_json", help="Print JSON.")

    def handle(self, *args: Any, **options: Any) -> None:
        user = user_to_act_as(options["user"])
        if options["ack"]:
            found = [self._acknowledged(pk, user) for pk in options["ack"]]
        else:
            found = list((alerts() if options["all"] else alerts().filter(resolved_at=None))[:MAX_LISTED])
        if options["as_json"]:
            print_json(self, [_facts(alert) for alert in found])
            return
        if not found:
            self.stdout.write("No alerts." if options["all"] else "No open alerts.")
            return
        table = Table(box=None, pad_edge=False)
        for heading in ("id", "state", "kind", "model", "since", "message"):
            table.add_column(heading, overflow="fold")
        for alert in found:
            model_id = alert.version.model_id if alert.version else ""
            since = at_second(alert.opened_at)
            table.add_row(str(alert.pk), alert.state, alert.kind, *map(escape, (model_id, since, alert.message)))
        print_table(self, table)

    def _acknowledged(self, pk: int, user: Any) -> Alert:
        alert = alerts().filter(pk=pk).first()
        if alert is None:
            raise CommandError(f"No alert has the id {pk}; `manage.py alerts` lists them.", returncode=1)
        with refusals_told():
            return acknowledge(alert, user=user)


def _facts(alert: Alert) -> dict[str, Any]:
    return {
        "id": alert.pk,
        "state": alert.state,
        "kind": alert.kind,
        "model_id": alert.version.model_id if alert.version else None,
        "message": alert.message,
        "value": alert.value,
        "threshold": alert.threshold,
        "opened_at": alert.opened_at,
        "acknowledged_at": alert.acknowledged_at,
        "acknowledged_by": alert.acknowledged_by_name,
        "resolved_at": alert.resolved_at,
    }
