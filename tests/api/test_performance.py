"""Figures of a window come from what was sampled in it, and only there; their course is a series of steps."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from loaderd.reporter import Sample
from modelhub.registry.models import ModelVersion
from modelhub.telemetry.recording import record_samples
from tests.api.conftest import MakeVersion

M = "/api/models/sentiment-model-v1"


def sampled(age: timedelta, **counted: object) -> Sample:
    return Sample("sentiment-model-v1", (timezone.now() - age).timestamp(), 10.0, **counted)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def samples(loaded: ModelVersion) -> None:
    busy = {"requests": 100, "items": 400, "latency_seconds": 0.2, "compute_seconds": 0.1}
    record_samples(
        [
            sampled(timedelta(minutes=10), **busy, errors=5, histogram=[0] * 20 + [100], queued=3, private_bytes=7),
            sampled(timedelta(hours=5), requests=100, items=100, latency_seconds=1.0, compute_seconds=1.0),
        ]
    )


def test_performance_of_the_last_hour(api: APIClient) -> None:
    body = api.get(f"{M}/performance").json()
    metrics = body["performance_metrics"]
    assert (metrics["accuracy"], metrics["latency_ms"], metrics["throughput"]) == (0.92, 2.0, 4000.0)
    assert metrics["latency_p99_ms"] == pytest.approx(1.6, rel=0.1)
    assert (body["error_rate"], body["usage_count"]) == (0.05, 1000)
    assert (body["window"]["requests"], body["window"]["max_queued"], body["window"]["private_bytes_max"]) == (
        100,
        3,
        7,
    )


def test_performance_of_a_day(api: APIClient) -> None:
    body = api.get(f"{M}/performance?window=24h").json()
    assert (body["window"]["requests"], body["window"]["window_seconds"]) == (200, 86_400)
    assert (body["performance_metrics"]["latency_ms"], body["error_rate"]) == (6.0, 0.025)


def test_the_score_counts_the_errors_of_the_last_hour(api: APIClient) -> None:
    assert api.get("/api/models/metrics").json()["health_score"] == 95.0


def test_the_course_of_a_model(api: APIClient) -> None:
    steps = api.get(f"{M}/samples?window=24h").json()
    assert len(steps) == 120
    assert [step["at"] for step in steps] == sorted(step["at"] for step in steps)
    assert sum(step["requests"] for step in steps) == 200
    (held,) = [step for step in steps if step["private_bytes"] is not None]
    assert (held["private_bytes"], held["errors"], held["error_rate"]) == (7, 5, 0.05)


def test_the_course_of_the_host(api: APIClient) -> None:
    record_samples([Sample(None, timezone.now().timestamp() - 60, 10.0, private_bytes=9, budget_bytes=600)])
    steps = api.get("/api/samples?window=1h").json()
    (held,) = [step for step in steps if step["private_bytes"] is not None]
    assert (held["private_bytes"], held["budget_bytes"]) == (9, 600)
    assert sum(step["requests"] for step in steps) == 100


@pytest.mark.parametrize("address", [f"{M}/performance", f"{M}/samples", "/api/samples"])
def test_another_window_is_refused(api: APIClient, address: str) -> None:
    answer = api.get(f"{address}?window=2h")
    assert (answer.status_code, list(answer.json()["error"]["details"])) == (400, ["window"])


class TestUnused:
    @pytest.fixture(autouse=True)
    def models(self, make_version: MakeVersion) -> None:
        now = timezone.now()
        ModelVersion.objects.update(last_used_at=now)
        for model_id, hours in (("a-day", 25), ("two-hours", 2)):
            long_ago = now - timedelta(hours=hours)
            make_version(
                model_id, status="loaded", last_used_at=long_ago, last_loaded_at=long_ago, private_bytes=2 * 1024**2
            )

    @pytest.mark.parametrize(("query", "wanted"), [("", ["a-day"]), ("?hours=1", ["a-day", "two-hours"])])
    def test_the_longest_unused_first(self, api: APIClient, query: str, wanted: list[str]) -> None:
        found = api.get(f"/api/models/unused{query}").json()
        assert [model["id"] for model in found] == wanted
        assert (found[0]["memory_usage_mb"], found[0]["pinned"]) == (2, False)

    @pytest.mark.usefixtures("loaderd_is_silent")
    def test_none_is_known_to_be_loaded_while_loaderd_is_silent(self, api: APIClient) -> None:
        assert api.get("/api/models/unused?hours=1").json() == []

    def test_hours_are_a_number(self, api: APIClient) -> None:
        assert api.get("/api/models/unused?hours=x").status_code == 400
