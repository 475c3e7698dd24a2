"""Starts everything that Modelhub needs and stops it again."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from modelhub.conf import config
from modelhub.launch.preflight import NotReady
from modelhub.launch.up import up


class Command(BaseCommand):
    help = "Starts Postgres (unless DATABASE_URL is set), the web server, the task queue and loaderd; Ctrl-C stops all."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            up(config())
        except NotReady as error:
            raise CommandError(str(error)) from None
