"""The manager of the specification, for asynchronous Python: its methods answer what the API answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from django.db import connection

from loaderd.errors import UnknownModel
from modelhub.api import overview
from modelhub.api.fields import mebibytes
from modelhub.api.serializers.models import ModelDetailSerializer, ModelSummarySerializer, PerformanceSerializer
from modelhub.api.serializers.system import HealthSerializer, MetricsSerializer
from modelhub.api.views.control import result_of
from modelhub.api.waiting import wait_for_end
from modelhub.lifecycle.actions import request_load, request_unload
from modelhub.lifecycle.observed import loader_view
from modelhub.registry.discovery import discover
from modelhub.registry.models import ModelVersion

Answer = TypeVar("Answer")

MAX_CALLS = 32  # at the same time; each holds a thread and a database connection


class DynamicModelManager:
    """Loads, unloads and describes models for a program that runs under Django's settings (`django.setup()`).

    user: the Django user that acts; None is the system, which may do everything. The store is MODELS_DIR.
    Every method raises the errors of `loaderd.errors`.
    """

    def __init__(self, *, user: Any = None) -> None:
        self._user = user
        self._threads = ThreadPoolExecutor(MAX_CALLS, thread_name_prefix="model-manager")

    async def initialize(self) -> None:
        """Looks through the store once."""
        await self._call(lambda: discover(actor=self._user.get_username() if self._user else "manager"))

    async def load_model(self, model_id: str) -> dict[str, Any]:
        """{"model_id", "status", "load_time", "memory_usage"}; returns when the model answers."""

        def load() -> dict[str, Any]:
            version = _registered(model_id)
            operation = request_load(version, user=self._user, source="python")
            result = result_of(wait_for_end(operation, version), version)
            return {
                "model_id": model_id,
                "status": "loaded",
                "load_time": result.get("load_seconds"),
                "memory_usage": mebibytes(result.get("private_bytes")),
            }

        return await self._call(load)

    async def unload_model(self, model_id: str) -> dict[str, Any]:
        """{"model_id", "status"}; returns when the process is gone. status: unloaded or not_loaded."""

        def unload() -> dict[str, Any]:
            version = _registered(model_id)
            operation = request_unload(version, user=self._user, source="python")
            result = result_of(wait_for_end(operation, version), version)
            return {"model_id": model_id, "status": result.get("status", "unloaded")}

        return await self._call(unload)

    async def list_models(self) -> list[dict[str, Any]]:
        def summaries() -> list[dict[str, Any]]:
            versions = ModelVersion.objects.select_related("lineage").only(*ModelSummarySerializer.Meta.columns)
            context = {"loader": loader_view(), "include_loaded": True}
            return [dict(entry) for entry in ModelSummarySerializer(versions, many=True, context=context).data]

        return await self._call(summaries)

    async def get_model_info(self, model_id: str) -> dict[str, Any]:
        def detail() -> dict[str, Any]:
            return dict(ModelDetailSerializer(_registered(model_id), context={"loader": loader_view()}).data)

        return await self._call(detail)

    async def get_model_performance(self, model_id: str) -> dict[str, Any]:
        return await self._call(
            lambda: dict(PerformanceSerializer(_registered(model_id), context={"loader": loader_view()}).data)
        )

    async def get_system_metrics(self) -> dict[str, Any]:
        return await self._call(lambda: dict(MetricsSerializer(overview.metrics(loader_view())).data))

    def get_health_status(self) -> dict[str, Any]:
        """Not a coroutine in the specification either; inside an event loop it blocks for two queries."""
        return self._submit(lambda: dict(HealthSerializer(overview.health(loader_view())).data)).result()

    async def _call(self, function: Callable[[], Answer]) -> Answer:
        return await asyncio.wrap_future(self._submit(function))

    def _submit(self, function: Callable[[], Answer]) -> Any:
        def run() -> Answer:
            try:
                return function()
            finally:
                connection.close()

        return self._threads.submit(run)


def _registered(model_id: str) -> ModelVersion:
    version = ModelVersion.objects.select_related("lineage").filter(model_id=model_id).first()
    if version is None:
        raise UnknownModel(f"No model has the id {model_id!r}; list_models() names those that are registered.")
    return version
