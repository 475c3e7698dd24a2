"""Runs the jobs that are queued; a part of `manage.py up`."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from modelhub.conf import config
from modelhub.jobs.running import Runner
from modelhub.private_dir import NotPrivate, ensure_private_dir

NICENESS = 19  # what serves goes first, on the processors, too


class Command(BaseCommand):
    help = "Predicts the files of queued jobs, one at a time, until it gets SIGTERM or Ctrl-C."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        run_dir = config().run_dir
        try:
            ensure_private_dir(run_dir)
        except NotPrivate as error:
            raise CommandError(str(error)) from None
        with (run_dir / "jobs.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CommandError("Another runner of jobs works in this state folder; stop it first.") from None
            os.nice(NICENESS)
            runner = Runner(threading.Event())
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *args: runner.end())
            runner.run()
