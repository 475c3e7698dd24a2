"""The specification's manager, from asynchronous Python, over the real queue and reporter."""

from __future__ import annotations

import asyncio

import pytest

from loaderd.errors import StateForbids, UnknownModel
from modelhub.lifecycle.models import Operation
from modelhub.manager import DynamicModelManager
from modelhub.registry.models import ModelVersion
from tests.lifecycle.conftest import MakeVersion
from tests.lifecycle.fake_loaderd import FakeLoaderd

pytestmark = pytest.mark.django_db(transaction=True)


def test_it_loads_describes_and_unloads(loaderd: FakeLoaderd, queue: None, make_version: MakeVersion) -> None:
    make_version("topic-v1")
    make_version("topic-v2")
    manager = DynamicModelManager()

    async def main() -> None:
        loaded = await asyncio.gather(manager.load_model("topic-v1"), manager.load_model("topic-v2"))
        assert loaded[0] == {"model_id": "topic-v1", "status": "loaded", "load_time": 0.01, "memory_usage": 1}
        listed = {entry["id"]: entry["status"] for entry in await manager.list_models()}
        assert listed == {"topic-v1": "loaded", "topic-v2": "loaded"}
        assert (await manager.get_model_info("topic-v1"))["runtime"]["pid"] == 4711
        assert (await manager.get_model_performance("topic-v1"))["load_count"] == 1
        assert (await manager.get_system_metrics())["loaded_models"] == 2
        health = manager.get_health_status()
        assert (health["status"], health["active_models"]) == ("healthy", 2)
        assert await manager.unload_model("topic-v1") == {"model_id": "topic-v1", "status": "unloaded"}
        assert await manager.unload_model("topic-v1") == {"model_id": "topic-v1", "status": "not_loaded"}

    asyncio.run(main())
    assert set(Operation.objects.values_list("source", flat=True)) == {"python"}


def test_what_is_refused_raises(loaderd: FakeLoaderd, version: ModelVersion) -> None:
    manager = DynamicModelManager()
    with pytest.raises(UnknownModel, match="'ghost'"):
        asyncio.run(manager.load_model("ghost"))
    ModelVersion.objects.update(missing_since="2026-01-01T00:00:00Z")
    with pytest.raises(StateForbids):
        asyncio.run(manager.load_model("topic-v1"))
