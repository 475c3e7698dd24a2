"""Loads on demand leave an operation each time a prediction finds its model unloaded: thousands, and nobody's decision.

They go with the measurements. What people asked for stays.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from django.db import transaction

from modelhub.lifecycle.models import ACTIVE, LineageChange, Operation, StateChange

CHUNK_OPERATIONS = 1000  # that one transaction deletes


def purge_demands(oldest: datetime) -> Callable[[], int | None]:
    """A step of `modelhub.telemetry.maintenance`: deletes ended operations on demand, and what states they changed."""
    # Nothing ends before it is requested, and the requests have an index.
    ended = Operation.objects.filter(source="demand", requested_at__lt=oldest, finished_at__lt=oldest)

    def step() -> int | None:
        with transaction.atomic():
            chosen = list(
                ended.exclude(status__in=ACTIVE)
                .order_by("requested_at")
                .values_list("pk", flat=True)[:CHUNK_OPERATIONS]
            )
            if not chosen:
                return None
            changes = StateChange.objects.filter(operation__in=chosen).order_by()
            deleted: int = changes._raw_delete(changes.db)
            LineageChange.objects.filter(operation__in=chosen).update(operation=None)  # who was live stays known
            operations = Operation.objects.filter(pk__in=chosen).order_by()
            return deleted + int(operations._raw_delete(operations.db))

    return step


def register() -> None:
    """Makes it a part of the maintenance."""
    from modelhub.telemetry.maintenance import PURGES

    if purge_demands not in PURGES:
        PURGES.append(purge_demands)
