"""The specification's manager, from asynchronous Python, over the real queue and reporter."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.utils import timezone

from loaderd.errors import PermissionDenied, StateForbids, UnknownModel
from modelhub.conf import config
from modelhub.lifecycle.models import Operation
from modelhub.manager import DynamicModelManager
from modelhub.policy.effective import effective
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
        assert manager.registry.get_loaded_models() == ["topic-v1", "topic-v2"]
        health = manager.get_health_status()
        assert (health["status"], health["active_models"]) == ("healthy", 2)
        assert await manager.unload_model("topic-v1") == {"model_id": "topic-v1", "status": "unloaded"}
        assert await manager.unload_model("topic-v1") == {"model_id": "topic-v1", "status": "not_loaded"}

    asyncio.run(main())
    assert set(Operation.objects.values_list("source", flat=True)) == {"python"}


def test_it_activates_and_rolls_back(loaderd: FakeLoaderd, queue: None, make_version: MakeVersion) -> None:
    for number in (1, 2):
        make_version(f"topic-v{number}", lineage="topic", version=f"{number}.0.0")
    manager = DynamicModelManager()

    async def main() -> None:
        await manager.load_model("topic-v1")
        assert (await manager.get_model_info("topic"))["id"] == "topic-v1"  # the first load is live
        assert await manager.activate_model("topic-v2", reason="better") == {
            "model_id": "topic-v2",
            "lineage": "topic",
            "status": "live",
            "previous": "topic-v1",
            "load_time": 0.01,
            "memory_freed_mb": 1,
            "gap_seconds": None,
        }
        assert {entry["id"]: entry["status"] for entry in await manager.list_models()} == {
            "topic-v1": "unloaded",
            "topic-v2": "loaded",
        }
        back = await manager.rollback("topic", reason="worse")
        assert (back["model_id"], back["previous"]) == ("topic-v1", "topic-v2")
        assert (await manager.get_model_info("topic"))["id"] == "topic-v1"
        assert (await manager.get_model_info("topic-v2"))["rolled_back_at"] is not None
        with pytest.raises(StateForbids):
            await manager.rollback("topic", to="topic-v1")
        with pytest.raises(UnknownModel, match="No lineage is named 'ghost'"):
            await manager.rollback("ghost")

    asyncio.run(main())


def test_it_optimizes_and_finds_what_is_unused(loaderd: FakeLoaderd, queue: None, version: ModelVersion) -> None:
    manager = DynamicModelManager()
    long_ago = timezone.now() - timedelta(hours=30)
    ModelVersion.objects.update(status="loaded", last_used_at=long_ago, last_loaded_at=long_ago)

    async def main() -> None:
        assert await manager.find_unused_models(threshold_hours=24) == ["topic-v1"]
        assert await manager.find_unused_models(threshold_hours=48) == []
        assert await manager.optimize_memory() == {
            "status": "completed",
            "memory_freed_mb": 1,
            "models_unloaded": 1,
            "optimization_time_ms": 10,
            "unloaded": [{"model_id": "topic-v1", "promised_bytes": 1000, "freed_bytes": 1000, "reason": "idle"}],
        }

    asyncio.run(main())


def test_what_a_silent_loaderd_held_is_not_told_as_unused(version: ModelVersion) -> None:
    long_ago = timezone.now() - timedelta(hours=30)
    ModelVersion.objects.update(status="loaded", last_used_at=long_ago, last_loaded_at=long_ago)
    assert asyncio.run(DynamicModelManager().find_unused_models(threshold_hours=24)) == []


class TestLimits:
    """The specification's attributes are the policy's settings, for everybody and at once."""

    def test_they_are_read_and_set(self, transactional_db: None) -> None:
        manager = DynamicModelManager()
        assert manager.memory_limit_mb == config().MAX_MEMORY_USAGE_MB

        async def main() -> None:
            manager.memory_limit_mb = 8192
            manager.gpu_memory_limit_mb = 4096

        asyncio.run(main())
        in_force = effective()
        assert (in_force.MAX_MEMORY_USAGE_MB, in_force.GPU_MEMORY_LIMIT_MB) == (8192, 4096)
        assert DynamicModelManager().memory_limit_mb == 8192

    def test_a_bad_value_is_refused(self, transactional_db: None) -> None:
        with pytest.raises(ValidationError):
            DynamicModelManager().memory_limit_mb = -1

    def test_a_user_needs_the_permission(self, transactional_db: None) -> None:
        manager = DynamicModelManager(user=User.objects.create_user("bob"))
        with pytest.raises(PermissionDenied, match=r"policy\.change_policy"):
            manager.memory_limit_mb = 1
        assert effective() == config()


def test_what_is_refused_raises(loaderd: FakeLoaderd, version: ModelVersion) -> None:
    manager = DynamicModelManager()
    with pytest.raises(UnknownModel, match="'ghost'"):
        asyncio.run(manager.load_model("ghost"))
    ModelVersion.objects.update(missing_since="2026-01-01T00:00:00Z")
    with pytest.raises(StateForbids):
        asyncio.run(manager.load_model("topic-v1"))
