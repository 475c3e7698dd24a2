"""What the API changed of a model, in the history that the admin shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.admin.models import CHANGE, LogEntry

from modelhub.registry.models import ModelVersion


def record_change(version: ModelVersion, values: Mapping[str, Any], user: Any) -> None:
    """Leaves an entry that names each field that gets another value; none when nothing changes."""
    changed = [
        f"{name}: {getattr(version, name)} → {value}"
        for name, value in values.items()
        if getattr(version, name) != value
    ]
    if changed:
        LogEntry.objects.log_actions(
            user.pk, [version], CHANGE, change_message=f"By the API. {', '.join(changed)}.", single_object=True
        )
