"""What a starting loaderd finds in the registry: states and operations of a daemon that is gone, and its wishes."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

from django.db import transaction
from django.db.models import Exists, F, OuterRef

from loaderd.errors import Cancelled, LoaderdError, LoaderUnreachable
from loaderd.protocol import ModelSpec
from loaderd.reporter import Heartbeat, OperationEnded, StateReport
from loaderd.rules import LIVE
from loaderd.states import ModelState
from modelhub.lifecycle.actions import check_loadable
from modelhub.lifecycle.models import LineageChange, Operation, OperationKind, OperationStatus
from modelhub.lifecycle.observations import record_heartbeat
from modelhub.lifecycle.observed import device_of
from modelhub.lifecycle.recording import record_ended, record_states
from modelhub.lifecycle.wishes import CANCEL_REQUESTED, SWITCHING_KINDS
from modelhub.policy.effective import effective
from modelhub.registry.artifacts import spec_of
from modelhub.registry.choices import DesiredState, Status
from modelhub.registry.models import Alias, ModelVersion
from modelhub.telemetry.recording import resolve_open_alerts

REASON = "loaderd started; nothing is loaded"

logger = logging.getLogger(__name__)


@transaction.atomic
def take_over(facts: Mapping[str, Any]) -> list[ModelSpec]:
    """Makes the registry say that nothing is loaded; returns the models that should be, the most important first.

    Of what the last daemon had begun, unloads have succeeded (the process ended with the daemon), and so have
    activations and rollbacks whose alias had moved. What was cancelled, and loaderd did not come to say so, is
    cancelled, with its wish put back; the rest has failed, and what an activation wished is put back.
    Operations still in the queue are kept, they reach the new daemon. A wished model that may not be loaded goes to
    error. Alerts are resolved: what is still wrong, this daemon finds itself.
    """
    now = time.time()
    held = ModelVersion.objects.exclude(status__in=[Status.UNLOADED, Status.ERROR]).values_list("model_id", flat=True)
    record_states([StateReport(model_id, ModelState.UNLOADED, REASON, now, cause="gone") for model_id in held])
    resolve_open_alerts(now)
    record_ended([_ended(operation, now) for operation in _begun()])
    specs, refused = _wished(now, device_of(facts))
    record_states(refused)
    # Also clears stopped_at.
    record_heartbeat(Heartbeat(now, facts, {}))
    return specs


def _begun() -> Iterable[Operation]:
    running = Operation.objects.filter(status=OperationStatus.RUNNING)
    return running.select_related("version").only("kind", "parameters", "version__model_id")


def _ended(operation: Operation, now: float) -> OperationEnded:
    operation_id = str(operation.pk)
    if operation.version is None:
        error = LoaderUnreachable(
            "loaderd ended during the optimisation, and every model's memory came back with it. It has started again "
            "and loads what is wished; repeat the command if it is still wanted."
        )
        return OperationEnded(operation_id, now, error=error.to_message())
    model_id = operation.version.model_id
    if operation.kind == OperationKind.UNLOAD:
        return OperationEnded(operation_id, now, result={"model_id": model_id, "status": "unloaded"})
    aim = "loaded"
    if operation.kind in SWITCHING_KINDS:
        move = LineageChange.objects.filter(operation=operation.pk, alias=LIVE).first()
        if move is not None:
            # The daemon that measured the rest is gone.
            unknown = dict.fromkeys(("load_seconds", "freed_bytes", "gap_seconds"))
            previous = move.details.get("previous_id")
            result = {"model_id": model_id, "status": "live", "previous": previous, **unknown}
            return OperationEnded(operation_id, now, result=result)
        aim = "live; what was live before stays so"
    if operation.parameters.get(CANCEL_REQUESTED):
        cancelled = Cancelled(f"The {operation.what} was cancelled, and loaderd ended with it.", model_id=model_id)
        return OperationEnded(operation_id, now, error=cancelled.to_message())
    error = LoaderUnreachable(
        f"loaderd ended before {model_id} was {aim}. It has started again and loads what is wished: see the model's "
        "status, and repeat the command if it is still wanted.",
        model_id=model_id,
    )
    return OperationEnded(operation_id, now, error=error.to_message())


def _wished(now: float, device: str) -> tuple[list[ModelSpec], list[StateReport]]:
    """Highest priority first, then live versions, then those that were asked last."""
    is_live = Exists(Alias.objects.filter(version=OuterRef("pk"), name=LIVE))
    wished = ModelVersion.objects.filter(desired_state=DesiredState.LOADED).select_related("lineage")
    in_order = wished.annotate(is_live=is_live).order_by(
        "-priority", "-is_live", F("last_used_at").desc(nulls_last=True), "model_id"
    )
    settings = effective()
    specs, refused = [], []
    for version in in_order:
        try:
            check_loadable(version)
            specs.append(spec_of(version, settings=settings, device=device))
        except LoaderdError as error:
            logger.warning("%s should be loaded and cannot be: %s", version, error.message)
            if version.status != Status.ERROR:  # or each start would count one more error
                told = error.to_message()
                refused.append(StateReport(version.model_id, ModelState.ERROR, error.message, now, error=told))
    return specs, refused
