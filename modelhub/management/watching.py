"""Waiting for operations at the terminal: a bar for each, or silence in a pipe."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from modelhub.api.waiting import limit_seconds
from modelhub.lifecycle.models import Operation
from modelhub.lifecycle.notifications import wait_for

# How often a bar looks for a new phase; the end itself is notified at once.
REFRESH_SECONDS = 0.25
# Beyond the limits of all the operations, which may have to follow one another.
GRACE_SECONDS = 10.0


def watch(running: dict[str, Operation], quiet: bool) -> dict[str, Operation]:
    """Waits for each end, showing phases on the terminal; an operation past its time comes back as it stands."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(20), TextColumn("{task.fields[phase]}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), disable=quiet) as progress:
        bars = {
            subject: progress.add_task(operation.what, total=1.0, phase=operation.status)
            for subject, operation in running.items()
        }
        limits = (limit_seconds(operation, operation.version) for operation in running.values())
        deadline = time.monotonic() + GRACE_SECONDS + sum(limits)
        pending = [subject for subject, operation in running.items() if not operation.is_ended]
        while pending and time.monotonic() < deadline:
            # Each round waits for one end and looks at all.
            running[pending[0]] = wait_for(running[pending[0]].id, REFRESH_SECONDS if not quiet else 1.0)
            ids = {operation.id: subject for subject, operation in running.items()}
            for operation in Operation.objects.filter(id__in=ids):
                running[ids[operation.id]] = operation
                phase = operation.status if operation.is_ended else operation.phase or operation.status
                done = 1.0 if operation.is_ended else operation.progress
                progress.update(bars[ids[operation.id]], completed=done, phase=phase)
            pending = [subject for subject in pending if not running[subject].is_ended]
    return running
