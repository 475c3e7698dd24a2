"""Health tells figures of one moment that add up, and counts what should be there and is not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from loaderd.errors import LoaderUnreachable
from modelhub.lifecycle.models import LoaderStatus, Operation, StateChange
from modelhub.registry.choices import Status
from modelhub.registry.models import ModelVersion
from tests.api.conftest import ControlSocket, MakeVersion

HEALTH, METRICS = "/api/models/health", "/api/models/metrics"
MIB = 2**20


def budget_of(api: APIClient, **told: int | None) -> dict[str, int]:
    LoaderStatus.objects.update(facts={"budget": told})
    return dict(api.get(HEALTH).json()["budget"]["memory"])


@pytest.mark.usefixtures("loaderd_is_heard")
@pytest.mark.parametrize(
    ("limit", "used", "reserved", "wanted"),
    [
        (4096 * MIB, 28 * MIB + 1, 0, (4096, 29, 0, 4067)),
        (4096 * MIB, 28 * MIB + 1, MIB - 1, (4096, 29, 1, 4066)),
        (13107 * MIB + 200_000, 1, 0, (13107, 1, 0, 13106)),
        (190 * MIB, 200 * MIB + 1, 0, (190, 201, 0, -11)),
        (600 * MIB, 0, 0, (600, 0, 0, 600)),
    ],
)
def test_the_figures_of_the_budget_add_up(
    api: APIClient, limit: int, used: int, reserved: int, wanted: tuple[int, ...]
) -> None:
    told = budget_of(api, budget_bytes=limit, used_bytes=used, reserved_bytes=reserved)
    assert tuple(told.values()) == wanted
    assert told["used_mb"] + told["reserved_mb"] + told["free_mb"] == told["limit_mb"]


class TestOneMoment:
    """A load that ended after loaderd's last heartbeat: the row is newer than the daemon's figures."""

    @pytest.fixture(autouse=True)
    def a_load_has_just_ended(self, loaded: ModelVersion, planner: ControlSocket) -> None:
        beat_at = timezone.now() - timedelta(seconds=1)
        stale = {"budget_bytes": 600 * MIB, "used_bytes": 0, "reserved_bytes": 143 * MIB}
        LoaderStatus.objects.update(observed_at=beat_at, facts={"budget": stale})
        move: dict[str, Any] = {"from_state": "loading", "to_state": "loaded", "reason": "", "actor": "ada"}
        StateChange.objects.create(version=loaded, at=beat_at + timedelta(milliseconds=500), **move)
        now = {"budget_bytes": 600 * MIB, "used_bytes": 200 * MIB, "reserved_bytes": 0}
        planner.status = {
            "facts": {"budget": now},
            "models": {loaded.model_id: {"private_bytes": 200 * MIB, "gpu_bytes": None}},
        }

    def test_loaderd_is_asked(self, api: APIClient, planner: ControlSocket) -> None:
        body = api.get(HEALTH).json()
        assert [asked["command"] for asked in planner.received] == ["status"]
        assert (body["total_memory_mb"], body["loaded_models"][0]["memory_usage"]) == (200, 200)
        assert body["budget"]["memory"] == {"limit_mb": 600, "used_mb": 200, "reserved_mb": 0, "free_mb": 400}
        assert body["loaderd"]["observed_at"] == pytest.approx(body["timestamp"], abs=5)
        metrics = api.get(METRICS).json()
        assert metrics["total_memory_usage_mb"] == metrics["budget"]["memory"]["used_mb"] == 200

    def test_once_its_heartbeat_has_come_nobody_is_asked(self, api: APIClient, planner: ControlSocket) -> None:
        LoaderStatus.objects.update(observed_at=timezone.now())
        assert api.get(HEALTH).json()["total_memory_mb"] == 256
        assert not planner.received

    def test_without_its_answer_the_last_figures_are_told_with_their_time(
        self, api: APIClient, planner: ControlSocket
    ) -> None:
        planner.refuse_with = LoaderUnreachable("It is away.")
        body = api.get(HEALTH).json()
        assert (body["total_memory_mb"], body["budget"]["memory"]["reserved_mb"]) == (256, 143)
        assert body["loaderd"]["observed_at"] == LoaderStatus.objects.get().observed_at.timestamp()


@pytest.mark.usefixtures("loaded")
class TestMissing:
    @pytest.fixture(params=[Status.UNLOADED, Status.LOADING], ids=str)
    def absent(self, request: pytest.FixtureRequest, make_version: MakeVersion) -> ModelVersion:
        return make_version("topic-v1", status=request.param, desired_state="loaded")

    def test_what_should_be_loaded_and_is_not_degrades(self, api: APIClient, absent: ModelVersion) -> None:
        body = api.get(HEALTH).json()
        assert (body["status"], body["active_models"], body["missing_models"]) == ("degraded", 1, ["topic-v1"])
        assert api.get(METRICS).json()["health_score"] == 49.5

    @pytest.mark.parametrize("kind", ["load", "activate", "rollback"])
    def test_what_a_command_is_loading_is_not_missed(self, api: APIClient, absent: ModelVersion, kind: str) -> None:
        Operation.objects.create(kind=kind, version=absent, status="running")
        body = api.get(HEALTH).json()
        assert (body["status"], body["missing_models"]) == ("healthy", [])

    def test_a_version_whose_activation_failed_is_nobodys_trouble(
        self, api: APIClient, make_version: MakeVersion
    ) -> None:
        """It is in error, its wish was put back, and the version before is live as it was."""
        make_version("topic-v4", status=Status.ERROR, desired_state="unloaded")
        assert api.get(HEALTH).json()["status"] == "healthy"
        assert api.get(METRICS).json()["health_score"] == 99.0
