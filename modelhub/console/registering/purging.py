"""Uploads that nobody confirmed are thrown away with the old measurements, by the same schedule."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from modelhub.conf import config
from modelhub.registry.uploads.staging import purge


def purge_uploads(oldest: datetime) -> Callable[[], int | None]:
    """A step of `modelhub.telemetry.maintenance`; their own age counts, not that of measurements."""

    def step() -> int | None:
        return purge(config().UPLOAD_KEPT_MINUTES * 60.0) or None

    return step


def register() -> None:
    """Makes it a part of the maintenance."""
    from modelhub.telemetry.maintenance import PURGES

    if purge_uploads not in PURGES:
        PURGES.append(purge_uploads)
