"""What a model takes along when it is deleted: counted and deleted, never read.

A week of predictions and samples is hundreds of thousands of rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db.models import Q, QuerySet

from modelhub.lifecycle.models import LineageChange, Operation, StateChange
from modelhub.telemetry.models import Alert, Comparison, Sample, Trace


def history_counts(version_ids: Iterable[int]) -> dict[str, int]:
    """Plural name -> how many rows of these models; only those that are."""
    found = {str(rows.model._meta.verbose_name_plural): rows.count() for rows in _history(list(version_ids))}
    return {name: count for name, count in found.items() if count}


def delete_history(version_ids: Iterable[int]) -> None:
    """Deletes it, one statement a table, none of whose rows come here. Within the caller's transaction."""
    chosen = list(version_ids)
    for rows in _history(chosen):
        if rows.model is Operation:
            # What an operation did to other models stays in their history.
            for kind in (StateChange, LineageChange):
                kind._default_manager.filter(operation__in=rows.values("pk")).update(operation=None)
        rows._raw_delete(rows.db)


def _history(version_ids: list[int]) -> list[QuerySet[Any]]:
    """In the order in which it may be deleted."""
    own = [model._default_manager.filter(version__in=version_ids) for model in (Sample, Trace, StateChange, Alert)]
    compared = Comparison.objects.filter(Q(live__in=version_ids) | Q(candidate__in=version_ids))
    return [rows.order_by() for rows in (*own, compared, Operation.objects.filter(version__in=version_ids))]
