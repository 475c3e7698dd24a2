"""Load, unload and cancel: waiting, not waiting, and what goes wrong."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from loaderd import errors
from modelhub.api import waiting
from modelhub.lifecycle.models import LoaderStatus, Operation, OperationStatus
from modelhub.registry.models import ModelVersion
from tests.api.conftest import FakeLoaderd, MakeVersion

LOAD = "/api/models/sentiment-model-v1/load"
UNLOAD = "/api/models/sentiment-model-v1/unload"


@pytest.fixture
def version(make_version: MakeVersion, loaderd: FakeLoaderd) -> ModelVersion:
    return make_version()


@pytest.mark.parametrize("preference", ["respond-async", "wait=10, respond-async", "Respond-Async; x=1"])
def test_respond_async_answers_at_once_and_says_where(api: APIClient, version: ModelVersion, preference: str) -> None:
    answer = api.post(LOAD, {"reason": "for the demo"}, headers={"Prefer": preference})
    operation = Operation.objects.get()
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/api/operations/{operation.id}"
    assert answer.headers["Preference-Applied"] == "respond-async"
    body = answer.json()
    assert (body["id"], body["kind"], body["status"]) == (str(operation.id), "load", "queued")
    assert (body["model_id"], body["requested_by"], body["source"]) == ("sentiment-model-v1", "admin", "api")
    assert body["reason"] == "for the demo"
    assert api.get(answer.headers["Location"]).json() == body


@pytest.mark.parametrize("preference", ["return=minimal", "respond-asynchronously"])
def test_other_preferences_are_ignored(
    api: APIClient, version: ModelVersion, loaderd: FakeLoaderd, preference: str
) -> None:
    loaderd.result = {"status": "loaded", "load_seconds": 0.1, "private_bytes": None}
    answer = api.post(LOAD, headers={"Prefer": preference})
    assert answer.status_code == 200
    assert answer.json()["memory_usage"] is None
    assert "Preference-Applied" not in answer.headers


def test_loading_what_is_loaded_answers_at_once(api: APIClient, loaded: ModelVersion, loaderd: FakeLoaderd) -> None:
    ModelVersion.objects.update(last_load_seconds=0.5)
    assert api.post(LOAD).json() == {
        "model_id": "sentiment-model-v1",
        "status": "loaded",
        "load_time": 0.5,
        "memory_usage": 256,
    }
    assert not loaderd.seen


def test_unloading_what_is_not_loaded_says_so(api: APIClient, version: ModelVersion) -> None:
    answer = api.post(UNLOAD)
    assert (answer.status_code, answer.json()["status"]) == (200, "not_loaded")


def test_it_needs_no_body_and_refuses_a_bad_one(api: APIClient, version: ModelVersion) -> None:
    assert api.post(UNLOAD, data=None, content_type=None).status_code == 200
    answer = api.post(UNLOAD, {"reason": "x" * 501})
    assert answer.status_code == 400
    assert "reason" in answer.json()["error"]["details"]


@pytest.mark.parametrize(
    "error",
    [
        errors.LoadFailed("it broke", log_tail="Killed"),
        errors.ModelTimeout("it passed 30 s"),
        errors.ModelProcessDied("it was killed"),
        errors.ArtifactChanged("other bytes"),
        errors.LoaderUnreachable("loaderd is away"),
        errors.Cancelled("it was cancelled"),
    ],
    ids=lambda error: error.code,
)
def test_an_operation_that_fails_answers_with_its_error(
    api: APIClient, version: ModelVersion, loaderd: FakeLoaderd, error: errors.LoaderdError
) -> None:
    loaderd.error = error.to_message()
    answer = api.post(LOAD)
    body = answer.json()["error"]
    assert answer.status_code == error.http_status
    assert (body["code"], body["message"]) == (error.code, error.message)
    assert body["details"] == {
        **error.facts,
        "model_id": "sentiment-model-v1",
        "operation": str(Operation.objects.get().id),
    }


def test_504_when_the_limit_passes_and_says_that_it_goes_on(
    api: APIClient, version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "GRACE_SECONDS", 0.0)
    ModelVersion.objects.update(load_timeout_seconds=0.1)
    answer = api.post(LOAD)
    operation = Operation.objects.get()
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "model_timeout"
    assert (
        f"still queued after 0.1 seconds and goes on; follow or cancel it at /api/operations/{operation.id}"
        in (answer.json()["error"]["message"])
    )


def test_503_when_loaderd_is_away_and_nothing_is_kept(api: APIClient, version: ModelVersion) -> None:
    LoaderStatus.objects.update(stopped_at=timezone.now())
    answer = api.post(LOAD)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "loaderd_unreachable"
    assert "nothing has changed" in answer.json()["error"]["message"]
    assert not Operation.objects.exists()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"artifact_format": "pickle"}, "artifact_refused"),
        ({"refusal": "metadata.json is no JSON."}, "artifact_refused"),
        ({"missing_since": timezone.now()}, "state_forbids"),
        ({"framework": "none-such"}, "unknown_framework"),
    ],
)
def test_409_where_the_state_forbids(api: APIClient, version: ModelVersion, fields: dict[str, Any], code: str) -> None:
    ModelVersion.objects.update(**fields)
    answer = api.post(LOAD)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, code)


def test_404_for_a_model_that_is_not_registered(api: APIClient, version: ModelVersion) -> None:
    answer = api.post("/api/models/none-such/load")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


class TestCancel:
    def test_a_queued_operation_is_cancelled(self, api: APIClient, version: ModelVersion) -> None:
        location = api.post(LOAD, headers={"Prefer": "respond-async"}).headers["Location"]
        answer = api.post(f"{location}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
        assert answer.json()["error"]["code"] == "cancelled"
        assert api.post(f"{location}/cancel").status_code == 409

    def test_a_running_load_needs_loaderd(self, api: APIClient, version: ModelVersion) -> None:
        operation = Operation.objects.create(kind="load", version=version, status=OperationStatus.RUNNING)
        answer = api.post(f"/api/operations/{operation.id}/cancel")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "loaderd_unreachable")

    def test_a_running_unload_is_not_stopped(self, api: APIClient, version: ModelVersion) -> None:
        operation = Operation.objects.create(kind="unload", version=version, status=OperationStatus.RUNNING)
        assert api.post(f"/api/operations/{operation.id}/cancel").status_code == 409


def test_a_model_with_a_dot_a_space_or_a_sign_in_its_id_is_reached(
    api: APIClient, make_version: MakeVersion, loaderd: FakeLoaderd
) -> None:
    for model_id in ("sentiment-model-v1.0", "with space", "größe", "a+b;c=d"):
        make_version(model_id)
        body = api.get(f"/api/models/{model_id}").json()
        assert body["id"] == model_id
        assert api.post(body["links"]["unload"]).json() == {"model_id": model_id, "status": "not_loaded"}
        assert [operation["model_id"] for operation in api.get(body["links"]["operations"]).json()] == [model_id]


def test_507_with_the_sum_when_it_does_not_fit(api: APIClient, version: ModelVersion, loaderd: FakeLoaderd) -> None:
    plan = {"needed_bytes": 900, "free_bytes": 100, "kept": [{"model_id": "a", "bytes": 500, "reason": "pinned"}]}
    loaderd.error = errors.InsufficientMemory("It needs 900 B and 100 B are free.", **plan).to_message()
    answer = api.post(LOAD)
    body = answer.json()["error"]
    assert (answer.status_code, body["code"]) == (507, "insufficient_memory")
    assert plan.items() <= body["details"].items()


class TestOptimizeMemory:
    ADDRESS = "/api/models/optimize-memory"

    def test_two_at_a_time_are_one(self, api: APIClient, loaderd: FakeLoaderd) -> None:
        first = api.post(self.ADDRESS, headers={"Prefer": "respond-async"})
        second = api.post(self.ADDRESS, headers={"Prefer": "respond-async"})
        assert (first.status_code, first.json()["kind"], first.json()["model_id"]) == (202, "optimize", None)
        assert first.json()["id"] == second.json()["id"]
        assert [found["id"] for found in api.get("/api/operations/?kind=optimize").json()] == [first.json()["id"]]

    def test_its_error_is_answered(self, api: APIClient, loaderd: FakeLoaderd) -> None:
        loaderd.error = errors.ShuttingDown("loaderd is ending.").to_message()
        answer = api.post(self.ADDRESS)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
        assert answer.json()["error"]["details"] == {"operation": str(Operation.objects.get().id)}

    def test_503_when_loaderd_is_away(self, api: APIClient, loaderd: FakeLoaderd) -> None:
        LoaderStatus.objects.update(stopped_at=timezone.now())
        assert api.post(self.ADDRESS).status_code == 503
        assert not Operation.objects.exists()
