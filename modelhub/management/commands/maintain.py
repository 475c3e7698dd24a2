"""Rolls up and purges the measurements now, instead of at the next turn of the schedule."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from modelhub.telemetry.maintenance import maintain


class Command(BaseCommand):
    help = (
        "Rolls up old measurements and deletes those past METRICS_RETENTION_DAYS; the queue does it every 10 minutes."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(maintain(limit_seconds=None)["sentence"])
