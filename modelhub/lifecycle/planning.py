"""What would happen: dry runs, answered by loaderd from what it holds at this moment. Nothing is changed or promised.

Every function raises what the command itself would raise before it reached loaderd, and LoaderUnreachable.
"""

from __future__ import annotations

from typing import Any

from loaderd.client import LoaderClient
from loaderd.errors import StateForbids
from modelhub.conf import config
from modelhub.lifecycle.actions import check_loadable, check_reachable
from modelhub.lifecycle.models import OperationKind
from modelhub.lifecycle.observed import loader_view
from modelhub.lifecycle.versions import live_of, switch_to_join
from modelhub.policy.effective import effective
from modelhub.registry.artifacts import spec_of
from modelhub.registry.models import Model, ModelVersion


def plan_load(version: ModelVersion) -> dict[str, Any]:
    """`loaderd.scheduler.Plan.to_message()` of its load: fits, evicts, waits or refused, with the sum."""
    return _plan_of(version, "load")


def plan_activate(version: ModelVersion, *, allow_gap: bool = False) -> dict[str, Any]:
    """As plan_load, with "replaces" (the model_id that is live now, or None) and "needs_gap": then it is refused,
    unless a gap is allowed.

    Raises StateForbids while another activation or rollback of its lineage is under way.
    """
    return _plan_switch(OperationKind.ACTIVATE, version, allow_gap)


def plan_rollback(lineage: Model, target: ModelVersion, *, allow_gap: bool = False) -> dict[str, Any]:
    """As plan_activate of `target`, an earlier version of the lineage; raises what request_rollback would."""
    facts = {"model_id": target.model_id, "lineage": lineage.name}
    if target.lineage_id != lineage.pk:
        raise StateForbids(f"{target.model_id} is no version of {lineage.name}.", **facts)
    live = live_of(lineage)
    if live is not None and live.pk == target.pk:
        raise StateForbids(f"{target.model_id} is live already.", **facts)
    return _plan_switch(OperationKind.ROLLBACK, target, allow_gap)


def plan_unload(version: ModelVersion) -> dict[str, Any]:
    """{"decision": "frees", "model_id", "frees_bytes", "frees_gpu_bytes", "in_flight", "sentence"}."""
    _check_reachable()
    return _client().plan("unload", model_id=version.model_id)


def plan_optimize() -> dict[str, Any]:
    """{"decision": "frees", "victims": [{"model_id", "bytes", "gpu_bytes", "reason"}], "frees_bytes", "sentence"}."""
    _check_reachable()
    return _client().plan("optimize")


def _plan_switch(kind: Any, version: ModelVersion, allow_gap: bool) -> dict[str, Any]:
    check_loadable(version)
    _check_reachable()
    switch_to_join(kind, version.lineage, version)
    return _plan_of(version, "activate", allow_gap=allow_gap)


def _plan_of(version: ModelVersion, action: str, *, allow_gap: bool = False) -> dict[str, Any]:
    check_loadable(version)
    _check_reachable()
    spec = spec_of(version, settings=effective(), device=loader_view().device)
    return _client().plan(action, spec=spec, allow_gap=allow_gap)


def _check_reachable() -> None:
    """A silent loaderd is not waited for."""
    check_reachable("the dry run")


def _client() -> LoaderClient:
    return LoaderClient(config().control_socket)
