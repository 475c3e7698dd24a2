"""What a starting loaderd finds in the registry: states and operations of a daemon that is gone, and its wishes."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from django.db import transaction

from loaderd.errors import LoaderdError, LoaderUnreachable
from loaderd.protocol import ModelSpec
from loaderd.reporter import Heartbeat, OperationEnded, StateReport
from loaderd.states import ModelState
from modelhub.lifecycle.actions import check_loadable
from modelhub.lifecycle.models import Operation, OperationStatus
from modelhub.lifecycle.recording import record_ended, record_heartbeat, record_states
from modelhub.registry.artifacts import spec_of
from modelhub.registry.choices import DesiredState, Status
from modelhub.registry.models import ModelVersion

REASON = "loaderd started; nothing is loaded"

logger = logging.getLogger(__name__)


@transaction.atomic
def take_over(facts: Mapping[str, Any]) -> list[ModelSpec]:
    """Makes the registry say that nothing is loaded; returns the models that should be.

    Operations that the last daemon had begun fail; those still in the queue are kept, they reach the new one.
    A wished model that may not be loaded goes to error.
    """
    now = time.time()
    held = ModelVersion.objects.exclude(status__in=[Status.UNLOADED, Status.ERROR]).values_list("model_id", flat=True)
    record_states([StateReport(model_id, ModelState.UNLOADED, REASON, now) for model_id in held])
    specs, refused = _wished(now)
    record_states(refused)
    error = LoaderUnreachable("loaderd ended before this was done, and has started again; repeat the command.")
    begun = Operation.objects.filter(status=OperationStatus.RUNNING).values_list("pk", flat=True)
    record_ended([OperationEnded(str(pk), now, error=error.to_message()) for pk in begun])
    # Also clears stopped_at.
    record_heartbeat(Heartbeat(now, facts, {}))
    return specs


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
