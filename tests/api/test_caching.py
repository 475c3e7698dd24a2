"""Clearing the response cache, and what is told of it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIClient

from modelhub.registry.models import ModelVersion
from modelhub.telemetry.models import Sample
from tests.api.conftest import As, ControlSocket, MakeVersion

MODEL = "/api/models/sentiment-model-v1"


@pytest.fixture
def version(make_version: MakeVersion) -> ModelVersion:
    return make_version()


class TestClearing:
    @pytest.mark.parametrize(
        ("method", "address", "model_id"),
        [("post", f"{MODEL}/clear-cache", "sentiment-model-v1"), ("delete", "/api/cache/", None)],
    )
    def test_it_reaches_loaderd(
        self,
        api: APIClient,
        version: ModelVersion,
        planner: ControlSocket,
        method: str,
        address: str,
        model_id: str | None,
    ) -> None:
        planner.forgotten = 7
        answer = getattr(api, method)(address)
        assert (answer.status_code, answer.json()) == (200, {"model_id": model_id, "forgotten": 7})
        (asked,) = planner.received
        assert asked == {"command": "forget_answers", "model_id": model_id}

    @pytest.mark.parametrize(("method", "address"), [("post", f"{MODEL}/clear-cache"), ("delete", "/api/cache")])
    def test_it_is_for_who_may_change_models(
        self, as_: As, version: ModelVersion, planner: ControlSocket, method: str, address: str
    ) -> None:
        assert getattr(as_("viewer"), method)(address).status_code == 403
        assert getattr(as_("anonymous"), method)(address).status_code == 401
        assert not planner.received

    def test_without_loaderd_it_is_refused(
        self, api: APIClient, version: ModelVersion, loaderd_is_silent: None
    ) -> None:
        answer = api.post(f"{MODEL}/clear-cache")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "loaderd_unreachable")

    def test_a_body_and_an_unknown_model_are_refused(self, api: APIClient, version: ModelVersion) -> None:
        assert api.post(f"{MODEL}/clear-cache", {"all": True}).status_code == 400
        assert api.post("/api/models/ghost/clear-cache").status_code == 404
        assert api.get("/api/cache/").status_code == 405

    def test_the_admin_asks_first_and_leaves_who_did_it(
        self, admin_client: Client, version: ModelVersion, planner: ControlSocket
    ) -> None:
        planner.forgotten = 2
        address = reverse("admin:registry_modelversion_clear_cache", args=[version.pk])
        assert "computed again" in admin_client.get(address).content.decode()
        assert not planner.received
        response = admin_client.post(address, follow=True)
        assert "2 kept answers of sentiment-model-v1 are forgotten" in response.content.decode()
        assert planner.received[0]["model_id"] == "sentiment-model-v1"


class TestFigures:
    def test_the_hit_rate_is_of_all_time_and_of_a_window(self, api: APIClient, version: ModelVersion) -> None:
        body = api.get(MODEL).json()
        assert (body["cache_hit_count"], body["cache_miss_count"], body["cache_hit_rate"]) == (0, 0, None)
        ModelVersion.objects.update(cache_hit_count=30, cache_miss_count=10)
        at = timezone.now() - timedelta(minutes=1)
        Sample.objects.create(version=version, at=at, seconds=10, requests=5, cache_hits=9, cache_misses=1)
        body = api.get(MODEL).json()
        assert (body["cache_hit_count"], body["cache_miss_count"], body["cache_hit_rate"]) == (30, 10, 0.75)
        window = api.get(f"{MODEL}/performance").json()["window"]
        assert (window["requests"], window["cache_hits"], window["cache_misses"]) == (5, 9, 1)
        assert window["cache_hit_rate"] == 0.9
