"""Waiting for an operation, as the specification's load and unload do."""

from __future__ import annotations

from modelhub.lifecycle.models import Operation
from modelhub.lifecycle.notifications import wait_for
from modelhub.registry.artifacts import load_limit_seconds
from modelhub.registry.models import ModelVersion

# loaderd ends a load that passes its limit and says so; this much longer is waited for its word.
GRACE_SECONDS = 5.0


def wait_for_end(operation: Operation, version: ModelVersion) -> Operation:
    """The operation as it stands when it ended, or when the time limit passed, whichever is first."""
    return wait_for(operation.id, load_limit_seconds(version) + GRACE_SECONDS)
