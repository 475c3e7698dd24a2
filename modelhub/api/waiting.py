"""Waiting for an operation, as the specification's load and unload do."""

from __future__ import annotations

from modelhub.conf import config
from modelhub.lifecycle.models import Operation
from modelhub.lifecycle.notifications import wait_for
from modelhub.registry.models import ModelVersion

# loaderd ends a load that passes its limit and says so; this much longer is waited for its word.
GRACE_SECONDS = 5.0


def time_limit_seconds(version: ModelVersion) -> float:
    """The limit of a load, as loaderd keeps it."""
    return version.load_timeout_seconds or config().MODEL_TIMEOUT_SECONDS


def wait_for_end(operation: Operation, version: ModelVersion) -> Operation:
    """The operation as it stands when it ended, or when the time limit passed, whichever is first."""
    return wait_for(operation.id, time_limit_seconds(version) + GRACE_SECONDS)
