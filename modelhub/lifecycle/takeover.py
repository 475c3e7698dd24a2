"""What a starting loaderd finds in the registry: states and operations of a daemon that is gone, and its wishes."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

from django.db import transaction

from loaderd.errors import LoaderdError, LoaderUnreachable
from loaderd.protocol import ModelSpec
from loaderd.reporter import Heartbeat, OperationEnded, StateReport
from loaderd.states import ModelState
from modelhub.lifecycle.actions import check_loadable
from modelhub.lifecycle.models import Operation, OperationKind, OperationStatus
from modelhub.lifecycle.recording import record_ended, record_heartbeat, record_states
from modelhub.registry.artifacts import spec_of
from modelhub.registry.choices import DesiredState, Status
from modelhub.registry.models import ModelVersion

REASON = "loaderd started; nothing is loaded"

logger = logging.getLogger(__name__)


@transaction.atomic
def take_over(facts: Mapping[str, Any]) -> list[ModelSpec]:
    """Makes the registry say that nothing is loaded; returns the models that should be.

    Of what the last daemon had begun, unloads have succeeded (the process ended with the daemon) and loads
    have failed; operations still in the queue are kept, they reach the new one. A wished model that may not
    be loaded goes to error.
    """
    now = time.time()
    held = ModelVersion.objects.exclude(status__in=[Status.UNLOADED, Status.ERROR]).values_list("model_id", flat=True)
    record_states([StateReport(model_id, ModelState.UNLOADED, REASON, now) for model_id in held])
    specs, refused = _wished(now)
    record_states(refused)
    record_ended([_ended(operation, now) for operation in _begun()])
    # Also clears stopped_at.
    record_heartbeat(Heartbeat(now, facts, {}))
    return specs


def _begun() -> Iterable[Operation]:
    running = Operation.objects.filter(status=OperationStatus.RUNNING)
    return running.select_related("version").only("kind", "version__model_id")


def _ended(operation: Operation, now: float) -> OperationEnded:
    model_id = operation.version.model_id
    if operation.kind == OperationKind.UNLOAD:
        return OperationEnded(str(operation.pk), now, result={"model_id": model_id, "status": "unloaded"})
    error = LoaderUnreachable(
        f"loaderd ended before {model_id} was loaded. It has started again and loads what is wished: see the model's "
        "status, and repeat the command if it is not loaded.",
        model_id=model_id,
    )
    return OperationEnded(str(operation.pk), now, error=error.to_message())


def _wished(now: float) -> tuple[list[ModelSpec], list[StateReport]]:
    specs, refused = [], []
    for version in ModelVersion.objects.filter(desired_state=DesiredState.LOADED).select_related("lineage"):
        try:
            check_loadable(version)
            specs.append(spec_of(version))
        except LoaderdError as error:
            logger.warning("%s should be loaded and cannot be: %s", version, error.message)
            if version.status != Status.ERROR:  # or each start would count one more error
                told = error.to_message()
                refused.append(StateReport(version.model_id, ModelState.ERROR, error.message, now, error=told))
    return specs, refused
