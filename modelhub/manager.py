"""The manager of the specification, for asynchronous Python: its methods answer what the API answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from django.db import connection

from loaderd.errors import PermissionDenied, UnknownModel
from loaderd.states import ModelState
from modelhub.actors import actor_of
from modelhub.api import overview
from modelhub.api.fields import mebibytes
from modelhub.api.serializers.models import ModelDetailSerializer, ModelSummarySerializer
from modelhub.api.serializers.performance import PerformanceSerializer
from modelhub.api.serializers.system import HealthSerializer, MetricsSerializer
from modelhub.api.views.control import activated
from modelhub.api.views.system import optimized
from modelhub.api.waiting import result_of, wait_for_end
from modelhub.api.windows import DEFAULT, SECONDS_OF
from modelhub.lifecycle import versions
from modelhub.lifecycle.actions import request_load, request_unload
from modelhub.lifecycle.observed import effective_status, loader_view
from modelhub.lifecycle.optimising import find_unused, request_optimize
from modelhub.lifecycle.settings import settings_in_force
from modelhub.policy.effective import change
from modelhub.registry.discovery import discover
from modelhub.registry.models import Model, ModelVersion
from modelhub.telemetry import queries

Answer = TypeVar("Answer")

SOURCE = "python"  # of its operations
MAX_CALLS = 32  # at the same time; each holds a thread and a database connection


class PolicySetting:
    """A setting in force, to be read and set as an attribute; setting it changes the policy for everybody.

    Blocks for a few queries. Raises django's ValidationError for a value that the setting refuses, PermissionDenied
    for a user who lacks `policy.change_policy`.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, manager: DynamicModelManager | None, owner: type) -> Any:
        return self if manager is None else manager.setting(self._name)

    def __set__(self, manager: DynamicModelManager, value: Any) -> None:
        manager.change_setting(self._name, value)


class LoadedModels:
    """What programs ask of the specification's registry."""

    def __init__(self, submit: Callable[[Callable[[], Any]], Any]) -> None:
        self._submit = submit

    def get_loaded_models(self) -> list[str]:
        """Ids of the models that answer now; blocks for two queries."""

        def loaded() -> list[str]:
            loader = loader_view()
            found = ModelVersion.objects.filter(status=ModelState.LOADED.value).only("model_id", "status")
            return [version.model_id for version in found if effective_status(version, loader) == ModelState.LOADED]

        return list(self._submit(loaded).result())


class DynamicModelManager:
    """Loads, unloads, activates and describes models for a program that runs under Django's settings
    (`django.setup()`).

    user: the Django user that acts; None is the system, which may do everything. The store is MODELS_DIR.
    A model_id may be a lineage's name: its live version is meant. Every method raises the errors of `loaderd.errors`.
    """

    memory_limit_mb = PolicySetting("MAX_MEMORY_USAGE_MB")
    gpu_memory_limit_mb = PolicySetting("GPU_MEMORY_LIMIT_MB")
    model_timeout_seconds = PolicySetting("MODEL_TIMEOUT_SECONDS")
    health_check_interval = PolicySetting("HEALTH_CHECK_INTERVAL")
    memory_optimization_interval = PolicySetting("MEMORY_OPTIMIZATION_INTERVAL")
    cache_enabled = PolicySetting("CACHE_ENABLED")
    cache_ttl_seconds = PolicySetting("CACHE_TTL_SECONDS")

    def __init__(self, *, user: Any = None) -> None:
        self._user = user
        self._threads = ThreadPoolExecutor(MAX_CALLS, thread_name_prefix="model-manager")

    async def initialize(self) -> None:
        """Looks through the store once."""
        await self._call(lambda: discover(actor=actor_of(self._user, SOURCE)))

    async def load_model(self, model_id: str) -> dict[str, Any]:
        """{"model_id", "status", "load_time", "memory_usage"}; returns when the model answers."""

        def load() -> dict[str, Any]:
            version = versions.named(model_id)
            operation = request_load(version, user=self._user, source=SOURCE)
            result = result_of(wait_for_end(operation, version), version)
            return {
                "model_id": version.model_id,
                "status": "loaded",
                "load_time": result.get("load_seconds"),
                "memory_usage": mebibytes(result.get("private_bytes")),
            }

        return await self._call(load)

    async def unload_model(self, model_id: str) -> dict[str, Any]:
        """{"model_id", "status"}; returns when the process is gone. status: unloaded or not_loaded."""

        def unload() -> dict[str, Any]:
            version = versions.named(model_id)
            operation = request_unload(version, user=self._user, source=SOURCE)
            result = result_of(wait_for_end(operation, version), version)
            return {"model_id": version.model_id, "status": result.get("status", "unloaded")}

        return await self._call(unload)

    async def activate_model(self, model_id: str, *, reason: str = "", allow_gap: bool = False) -> dict[str, Any]:
        """{"model_id", "lineage", "status", "previous", "load_time", "memory_freed_mb", "gap_seconds"}.

        Returns when it is live and the version before is unloaded. allow_gap: where both do not fit into memory.
        """

        def activate() -> dict[str, Any]:
            version = versions.named(model_id)
            return activated(
                versions.request_activate(version, user=self._user, source=SOURCE, reason=reason, allow_gap=allow_gap)
            )

        return await self._call(activate)

    async def rollback(
        self, lineage: str, *, to: str | None = None, reason: str = "", allow_gap: bool = False
    ) -> dict[str, Any]:
        """As activate_model, toward the version that was live before, or the one whose id is `to`."""

        def roll_back() -> dict[str, Any]:
            found = _lineage(lineage)
            target = versions.named(to) if to is not None else None
            return activated(
                versions.request_rollback(
                    found, to=target, user=self._user, source=SOURCE, reason=reason, allow_gap=allow_gap
                )
            )

        return await self._call(roll_back)

    async def optimize_memory(self) -> dict[str, Any]:
        """{"status", "memory_freed_mb", "models_unloaded", "optimization_time_ms", "unloaded"}; measured."""

        def optimize() -> dict[str, Any]:
            operation = request_optimize(user=self._user, source=SOURCE)
            return optimized(result_of(wait_for_end(operation, None), None))

        return await self._call(optimize)

    async def find_unused_models(self, threshold_hours: float | None = None) -> list[str]:
        """Ids of the loaded models that nobody asked for so long; without: UNUSED_MODEL_TIMEOUT_HOURS."""

        def unused() -> list[str]:
            loader = loader_view()
            found = find_unused(threshold_hours)
            return [version.model_id for version in found if effective_status(version, loader) == ModelState.LOADED]

        return await self._call(unused)

    async def list_models(self) -> list[dict[str, Any]]:
        def summaries() -> list[dict[str, Any]]:
            columns = ModelSummarySerializer.Meta.columns
            found = ModelVersion.objects.select_related("lineage").prefetch_related("aliases").only(*columns)
            context = {"loader": loader_view(), "include_loaded": True}
            return [dict(entry) for entry in ModelSummarySerializer(found, many=True, context=context).data]

        return await self._call(summaries)

    async def get_model_info(self, model_id: str) -> dict[str, Any]:
        def detail() -> dict[str, Any]:
            return dict(ModelDetailSerializer(versions.named(model_id), context={"loader": loader_view()}).data)

        return await self._call(detail)

    async def get_model_performance(self, model_id: str) -> dict[str, Any]:
        """What the API answers for the last hour, and `latency_ms` (None before the first prediction) beside it."""

        def performance() -> dict[str, Any]:
            version = versions.named(model_id)
            context = {"loader": loader_view(), "summary": queries.summary(version, SECONDS_OF[DEFAULT])}
            told = dict(PerformanceSerializer(version, context=context).data)
            return {**told, "latency_ms": told["performance_metrics"].get("latency_ms")}

        return await self._call(performance)

    async def get_system_metrics(self) -> dict[str, Any]:
        return await self._call(lambda: dict(MetricsSerializer(overview.metrics(loader_view())).data))

    def get_health_status(self) -> dict[str, Any]:
        """Not a coroutine in the specification either; inside an event loop it blocks for a few queries."""
        return self._submit(lambda: dict(HealthSerializer(overview.health(loader_view())).data)).result()

    def setting(self, name: str) -> Any:
        """The value of a setting that counts, by loaderd's environment and not this program's. Blocks for queries."""
        found = self._submit(lambda: settings_in_force(loader_view())).result()
        return next(setting["value"] for setting in found if setting["name"] == name)

    def change_setting(self, name: str, value: Any) -> None:
        """Overrides a setting in the policy, or with None takes the override back. Blocks for a few queries."""
        if self._user is not None and not self._user.has_perm("policy.change_policy"):
            raise PermissionDenied(f"{self._user} may not change settings; grant policy.change_policy.")
        self._submit(lambda: change({name: value}, user=self._user, source=SOURCE)).result()

    @property
    def registry(self) -> LoadedModels:
        return LoadedModels(self._submit)

    async def _call(self, function: Callable[[], Answer]) -> Answer:
        return await asyncio.wrap_future(self._submit(function))

    def _submit(self, function: Callable[[], Answer]) -> Any:
        def run() -> Answer:
            try:
                return function()
            finally:
                connection.close()

        return self._threads.submit(run)


def _lineage(name: str) -> Model:
    lineage = Model.objects.filter(name=name).first()
    if lineage is None:
        raise UnknownModel(f"No lineage is named {name!r}; get_model_info() tells a model's.")
    return lineage
