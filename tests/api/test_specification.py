"""The eight endpoints of the specification answer its fields, in its order and types, and then those beside it."""

from __future__ import annotations

import time
from types import NoneType
from typing import Any

import pytest
from rest_framework.test import APIClient

from modelhub.registry.choices import Status
from modelhub.registry.models import ModelVersion
from modelhub.telemetry.models import Alert
from tests.api.conftest import FakeLoaderd, MakeVersion

Types = dict[str, tuple[type, ...]]

SUMMARY: Types = {
    "id": (str,),
    "name": (str,),
    "type": (str,),
    "version": (str,),
    "status": (str,),
    "framework": (str,),
    "loaded": (bool,),
    "memory_usage": (int, NoneType),
    "gpu_memory_usage": (int, NoneType),
    "load_count": (int,),
    "usage_count": (int,),
    "health_status": (str,),
}
BESIDE_BOTH: Types = {
    "lineage": (str,),
    "aliases": (list,),
    "is_live": (bool,),
    "desired_state": (str,),
    "pinned": (bool,),
    "priority": (int,),
    "autoload": (bool,),
    "keep_alive_seconds": (float, NoneType),
    "memory_limit_mb": (int, NoneType),
    "status_cause": (str,),
    "health_reason": (str,),
    "heartbeat_at": (float, NoneType),
    "canary_at": (float, NoneType),
    "canary_ok": (bool, NoneType),
    "canary_seconds": (float, NoneType),
    "rolled_back_at": (float, NoneType),
    "measured": (dict, NoneType),
}
DETAIL: Types = {
    "id": (str,),
    "name": (str,),
    "type": (str,),
    "version": (str,),
    "path": (str,),
    "framework": (str,),
    "size_bytes": (int,),
    "created_at": (float,),
    "last_loaded": (float, NoneType),
    "load_count": (int,),
    "usage_count": (int,),
    "average_load_time": (float,),
    "performance_metrics": (dict,),
    "health_status": (str,),
    "memory_usage_mb": (int, NoneType),
    "gpu_memory_usage_mb": (int, NoneType),
    "last_health_check": (float, NoneType),
    "error_count": (int,),
}
BESIDE_DETAIL: Types = {
    "status": (str,),
    "loaded": (bool,),
    "status_reason": (str,),
    "last_error": (str,),
    "observed_at": (float, NoneType),
    "runtime": (dict, NoneType),
    "format": (str,),
    "digest": (str,),
    "approved": (bool,),
    "refusal": (str,),
    "missing_since": (float, NoneType),
    "stale_in_memory": (bool,),
    "signature": (dict, NoneType),
    "load_timeout_seconds": (float, NoneType),
    "threads": (int, NoneType),
    "instances": (int,),
    "max_batch_size": (int,),
    "max_queue": (int,),
    "precision": (str,),
    "cache_enabled": (bool, NoneType),
    "cache_ttl_seconds": (float, NoneType),
    "cache_hit_count": (int,),
    "cache_miss_count": (int,),
    "cache_hit_rate": (float, NoneType),
    "rolled_back_reason": (str,),
    "links": (dict,),
}
PERFORMANCE: Types = {
    "model_id": (str,),
    "load_count": (int,),
    "usage_count": (int,),
    "average_load_time": (float,),
    "performance_metrics": (dict,),
    "memory_efficiency": (float, NoneType),
    "error_rate": (float,),
    "window": (dict,),
}
HEALTH: Types = {
    "status": (str,),
    "active_models": (int,),
    "total_memory_mb": (int,),
    "gpu_memory_mb": (int,),
    "loaded_models": (list,),
    "timestamp": (float,),
    "loaderd": (dict,),
    "open_alerts": (int,),
    "budget": (dict,),
    "missing_models": (list,),
}
METRICS: Types = {
    "total_models": (int,),
    "loaded_models": (int,),
    "total_memory_usage_mb": (int,),
    "gpu_memory_usage_mb": (int,),
    "average_load_time_ms": (float,),
    "total_load_count": (int,),
    "health_score": (float,),
    "uptime_seconds": (int,),
    "models_by_type": (dict,),
    "models_by_framework": (dict,),
    "open_alerts": (int,),
    "budget": (dict,),
}
OPTIMIZED: Types = {
    "status": (str,),
    "memory_freed_mb": (int,),
    "models_unloaded": (int,),
    "optimization_time_ms": (int,),
    "unloaded": (list,),
}


MIB = 1024**2
BUDGET = {
    "memory": {"limit_mb": 600, "used_mb": 256, "reserved_mb": 100, "free_mb": 244},
    "gpu": {"limit_mb": None, "used_mb": None, "reserved_mb": None, "free_mb": None},
}


def check(body: dict[str, Any], wanted: Types) -> None:
    assert list(body) == list(wanted)
    wrong = {name: type(body[name]) for name, types in wanted.items() if type(body[name]) not in types}
    assert not wrong


@pytest.mark.usefixtures("loaderd_is_heard")
@pytest.mark.parametrize("is_used", [True, False], ids=["a model in use", "a model never touched"])
class TestTypes:
    @pytest.fixture(autouse=True)
    def version(self, is_used: bool, request: pytest.FixtureRequest) -> ModelVersion:
        if is_used:
            return request.getfixturevalue("loaded")
        return request.getfixturevalue("make_version")()

    def test_list(self, api: APIClient) -> None:
        (entry,) = api.get("/api/models/").json()
        check(entry, {**SUMMARY, **BESIDE_BOTH})

    def test_detail(self, api: APIClient) -> None:
        check(api.get("/api/models/sentiment-model-v1").json(), {**DETAIL, **BESIDE_BOTH, **BESIDE_DETAIL})

    def test_performance(self, api: APIClient) -> None:
        check(api.get("/api/models/sentiment-model-v1/performance").json(), PERFORMANCE)

    def test_health(self, api: APIClient) -> None:
        check(api.get("/api/models/health").json(), HEALTH)

    def test_metrics(self, api: APIClient) -> None:
        check(api.get("/api/models/metrics").json(), METRICS)


@pytest.mark.usefixtures("loaded")
class TestValues:
    def test_list(self, api: APIClient) -> None:
        (entry,) = api.get("/api/models/").json()
        assert {name: entry[name] for name in SUMMARY} == {
            "id": "sentiment-model-v1",
            "name": "Sentiment Analysis Model",
            "type": "sentiment",
            "version": "1.0.0",
            "status": "loaded",
            "framework": "sklearn",
            "loaded": True,
            "memory_usage": 256,  # rounded up
            "gpu_memory_usage": 128,
            "load_count": 4,
            "usage_count": 1000,
            "health_status": "healthy",
        }

    def test_detail(self, api: APIClient, settings: Any) -> None:
        body = api.get("/api/models/sentiment-model-v1").json()
        assert body["path"] == str(settings.CONFIG.MODELS_DIR / "sentiment" / "sentiment-model-v1")
        assert body["average_load_time"] == 0.5
        assert body["performance_metrics"] == {"accuracy": 0.92, "latency_ms": 2.0, "throughput": 2000.0}
        assert (body["memory_usage_mb"], body["gpu_memory_usage_mb"]) == (256, 128)
        assert body["error_count"] == 11
        for name in ("created_at", "last_loaded", "last_health_check", "observed_at"):
            assert time.time() - 60 < body[name] <= time.time(), name
        runtime = body["runtime"]
        assert list(runtime) == ["pid", "started_at", "phase", "private_bytes", "gpu_bytes"]
        assert (runtime["pid"], runtime["phase"], runtime["private_bytes"]) == (4711, "serving", 256 * 1024**2 - 5)
        assert body["links"]["load"] == "/api/models/sentiment-model-v1/load"

    def test_performance(self, api: APIClient) -> None:
        body = api.get("/api/models/sentiment-model-v1/performance").json()
        assert body["error_rate"] == 0.01
        assert body["window"]["requests"] == 0
        assert body["memory_efficiency"] == round(50 * 1024**2 / (384 * 1024**2 - 5), 4)

    def test_health(self, api: APIClient, open_alert: Alert) -> None:
        body = api.get("/api/models/health").json()
        assert body.pop("timestamp") == pytest.approx(time.time(), abs=30)
        assert body["loaderd"].pop("observed_at") == pytest.approx(time.time(), abs=30)
        assert body == {
            "status": "healthy",
            "active_models": 1,
            "total_memory_mb": 256,
            "gpu_memory_mb": 128,
            "loaded_models": [{"id": "sentiment-model-v1", "status": "healthy", "memory_usage": 256}],
            "loaderd": {"reachable": True, "pid": 99},
            "open_alerts": 1,
            "budget": BUDGET,
            "missing_models": [],
        }

    def test_metrics(self, api: APIClient, make_version: MakeVersion) -> None:
        make_version("topic-v1", type="topic", framework="transformers")
        make_version("topic-v2", type="topic", framework="tensorflow", load_count=1, load_seconds_total=0.5)
        body = api.get("/api/models/metrics").json()
        assert body.pop("uptime_seconds") == pytest.approx(3600, abs=30)
        assert body == {
            "total_models": 3,
            "loaded_models": 1,
            "total_memory_usage_mb": 256,
            "gpu_memory_usage_mb": 128,
            "average_load_time_ms": 500.0,
            "total_load_count": 5,
            "health_score": 99.0,
            "models_by_type": {"sentiment": 1, "topic": 2},
            "models_by_framework": {"sklearn": 1, "tensorflow": 1, "transformers": 1},
            "open_alerts": 0,
            "budget": BUDGET,
        }

    def test_health_and_score_fall_when_a_model_fails(self, api: APIClient, make_version: MakeVersion) -> None:
        make_version("broken", status=Status.ERROR, desired_state="loaded")
        assert api.get("/api/models/health").json()["status"] == "degraded"
        assert api.get("/api/models/metrics").json()["health_score"] == 49.5


@pytest.mark.usefixtures("loaded", "loaderd_is_silent")
class TestSilentLoaderd:
    """A silent loaderd never shows as a stale `loaded`."""

    def test_list(self, api: APIClient) -> None:
        (entry,) = api.get("/api/models/").json()
        assert (entry["status"], entry["loaded"], entry["memory_usage"]) == ("unreachable", False, None)
        assert entry["health_status"] == "unknown"

    def test_detail(self, api: APIClient) -> None:
        ModelVersion.objects.update(status_reason="answers its warm-up")
        body = api.get("/api/models/sentiment-model-v1").json()
        assert (body["status"], body["runtime"], body["memory_usage_mb"]) == ("unreachable", None, None)
        assert body["status_reason"].startswith("loaderd is away (it was last heard at ")
        assert body["status_reason"].endswith("before, it was loaded: answers its warm-up")
        assert body["observed_at"] is not None
        assert body["health_status"] == "unknown"

    def test_performance(self, api: APIClient) -> None:
        body = api.get("/api/models/sentiment-model-v1/performance").json()
        assert (body["memory_efficiency"], body["load_count"]) == (None, 4)

    def test_health_and_metrics(self, api: APIClient) -> None:
        health, metrics = api.get("/api/models/health").json(), api.get("/api/models/metrics").json()
        assert (health["status"], health["active_models"], health["loaderd"]["reachable"]) == ("unhealthy", 0, False)
        assert (metrics["health_score"], metrics["uptime_seconds"], metrics["total_models"]) == (0.0, 0, 1)
        assert set(health["budget"]["memory"].values()) == {None}


def test_load_answers_as_in_the_specification(api: APIClient, loaderd: FakeLoaderd, make_version: MakeVersion) -> None:
    make_version()
    loaderd.result = {"status": "loaded", "load_seconds": 1.23, "private_bytes": 255 * 1024**2 + 1, "gpu_bytes": None}
    answer = api.post("/api/models/sentiment-model-v1/load")
    assert answer.status_code == 200
    assert answer.json() == {
        "model_id": "sentiment-model-v1",
        "status": "loaded",
        "load_time": 1.23,
        "memory_usage": 256,
    }


def test_unload_answers_as_in_the_specification(
    api: APIClient, loaderd: FakeLoaderd, make_version: MakeVersion
) -> None:
    make_version(status=Status.LOADED, desired_state="loaded")
    loaderd.result = {"status": "unloaded", "freed_bytes": 1}
    answer = api.post("/api/models/sentiment-model-v1/unload")
    assert answer.status_code == 200
    assert answer.json() == {"model_id": "sentiment-model-v1", "status": "unloaded"}


def test_optimize_memory_tells_what_was_measured_as_freed(api: APIClient, loaderd: FakeLoaderd) -> None:
    unloaded = [
        {"model_id": "topic-v1", "promised_bytes": 2 * MIB, "freed_bytes": 300 * MIB, "reason": "not asked for 26 h"},
        {"model_id": "topic-v2", "promised_bytes": 2 * MIB, "freed_bytes": 212 * MIB - 5, "reason": "little used"},
    ]
    loaderd.result = {
        "status": "completed",
        "unloaded": unloaded,
        "promised_bytes": 4 * MIB,
        "freed_bytes": 512 * MIB - 5,
        "seconds": 0.25,
    }
    body = api.post("/api/models/optimize-memory").json()
    check(body, OPTIMIZED)
    assert body == {
        "status": "completed",
        "memory_freed_mb": 512,
        "models_unloaded": 2,
        "optimization_time_ms": 250,
        "unloaded": unloaded,
    }
    assert [(operation.kind, operation.version) for operation in loaderd.seen] == [("optimize", None)]
