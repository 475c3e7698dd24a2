"""Waiting for an operation, as the specification's load and unload do, and what it brought."""

from __future__ import annotations

from typing import Any

from django.urls import reverse

from loaderd.errors import Cancelled, ModelTimeout, from_message
from modelhub.conf import config
from modelhub.lifecycle.models import Operation, OperationKind, OperationStatus
from modelhub.lifecycle.notifications import wait_for
from modelhub.policy.effective import effective
from modelhub.registry.artifacts import load_limit_seconds
from modelhub.registry.models import ModelVersion

# loaderd ends a load that passes its limit and says so; this much longer is waited for its word.
GRACE_SECONDS = 5.0


def limit_seconds(operation: Operation, version: ModelVersion | None) -> float:
    """How long this command may take before a caller stops waiting for it; it goes on all the same.

    version: of the operation, None when it concerns all. An activation loads, drains what was live, and after a gap
    that failed loads that again.
    """
    drain_seconds = config().PREDICT_TIMEOUT_SECONDS
    if version is None:
        return drain_seconds + effective().MODEL_TIMEOUT_SECONDS
    if operation.kind in (OperationKind.ACTIVATE, OperationKind.ROLLBACK):
        return 2 * load_limit_seconds(version) + drain_seconds
    return load_limit_seconds(version)


def wait_for_end(operation: Operation, version: ModelVersion | None) -> Operation:
    """The operation as it stands when it ended, or when the time limit passed, whichever is first."""
    return wait_for(operation.id, limit_seconds(operation, version) + GRACE_SECONDS)


def result_of(operation: Operation, version: ModelVersion | None) -> dict[str, Any]:
    """What a succeeded operation brought; raises the error of one that failed, and ModelTimeout of one that runs on."""
    operation.version = version  # read already
    facts: dict[str, Any] = {"operation": str(operation.id)}
    if version is not None:
        facts = {"model_id": version.model_id, **facts}
    if operation.status == OperationStatus.SUCCEEDED:
        return operation.result or {}
    if operation.status == OperationStatus.CANCELLED:
        raise Cancelled(f"The {operation.what} was cancelled; ask again if it is wanted.", **facts)
    if operation.status == OperationStatus.FAILED and operation.error:
        error = from_message(operation.error)
        error.facts = {**error.facts, **facts}
        raise error
    raise ModelTimeout(
        f"The {operation.what} is still {operation.status} after {limit_seconds(operation, version):g} seconds and "
        f"goes on; follow or cancel it at {reverse('operation-detail', kwargs={'operation_id': operation.id})}.",
        **facts,
    )
