"""Runs the task queue: django-q2's workers, which hand commands to loaderd."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from modelhub.conf import config
from modelhub.lifecycle.cluster import AlreadyRunning, ClusterDied, run_cluster
from modelhub.private_dir import NotPrivate


class Command(BaseCommand):
    help = "Runs the workers that hand commands to loaderd, until it gets SIGTERM or Ctrl-C."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            run_cluster(config().run_dir)
        except (NotPrivate, AlreadyRunning, ClusterDied) as error:
            raise CommandError(str(error)) from None
