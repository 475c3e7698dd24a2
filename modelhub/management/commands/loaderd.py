"""Runs the daemon that holds the models, composed with the registry's reporter."""

from __future__ import annotations

import asyncio
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError

from loaderd.supervisor.config import DaemonConfig
from loaderd.supervisor.daemon import AlreadyRunning, Daemon
from modelhub.conf import config
from modelhub.lifecycle.reporting import DatabaseReporter
from modelhub.private_dir import NotPrivate, ensure_private_dir
from modelhub.registry.models import ModelVersion


class Command(BaseCommand):
    help = "Runs loaderd: holds the models, one process each, until it gets SIGTERM or Ctrl-C."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--no-zygotes", action="store_true", help="Spawn every model process cold; for comparison and debugging."
        )

    def handle(self, *args: Any, no_zygotes: bool, **options: Any) -> None:
        try:
            ensure_private_dir(config().run_dir)
            asyncio.run(Daemon(self._daemon_config(use_zygotes=not no_zygotes), DatabaseReporter()).run())
        except (NotPrivate, AlreadyRunning) as error:
            raise CommandError(str(error)) from None
        except OperationalError as error:
            raise CommandError(
                f"loaderd cannot read the registry: {str(error).strip()}. Start Postgres, or mend DATABASE_URL."
            ) from None

    def _daemon_config(self, *, use_zygotes: bool) -> DaemonConfig:
        settings = config()
        frameworks = (
            ModelVersion.objects.filter(missing_since=None).order_by("framework").values_list("framework", flat=True)
        )
        return DaemonConfig(
            run_dir=settings.run_dir,
            logs_dir=settings.logs_dir,
            control_socket=settings.control_socket,
            gateway_socket=settings.gateway_socket,
            inference_host=settings.INFERENCE_HOST,
            inference_port=settings.INFERENCE_PORT,
            gateway_processes=settings.GATEWAY_PROCESSES,
            grpc_host=settings.GRPC_HOST,
            grpc_port=settings.grpc_port,
            predict_timeout_seconds=settings.PREDICT_TIMEOUT_SECONDS,
            prewarm=tuple(frameworks.distinct()),
            use_zygotes=use_zygotes,
        )
