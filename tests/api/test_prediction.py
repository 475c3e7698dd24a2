"""Predictions through the API cost no query but those that tell who asks."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from modelhub.conf import config
from modelhub.inference import client
from modelhub.policy import effective
from modelhub.policy.effective import change
from tests.api.conftest import As

ANSWER = {
    "model_id": "m.1",
    "version": "1.0.0",
    "predictions": [{"label": "positive", "score": 0.9, "scores": {"positive": 0.9, "negative": 0.1}}],
    "latency_ms": 1.5,
}


@pytest.fixture
def asked(db: None, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The calls that reached loaderd's door."""
    calls: list[Any] = []

    def predict(model_id: str, inputs: list[Any], **options: Any) -> dict[str, Any]:
        calls.append((model_id, inputs, options))
        return ANSWER

    monkeypatch.setattr(client, "predict", predict)
    return calls


def test_it_answers_what_the_door_answers(as_: As, asked: list[Any]) -> None:
    answer = as_("operator").post("/api/models/m.1/predict", {"inputs": ["good", "bad"]})
    assert (answer.status_code, answer.json()) == (200, ANSWER)
    options = {"user": "operator", "timeout_seconds": client.time_limit_seconds(), "trace": {}}
    assert asked == [("m.1", ["good", "bad"], options)]
    assert options["timeout_seconds"] > config().PREDICT_TIMEOUT_SECONDS + config().LOAD_WAIT_SECONDS


def test_the_callers_trace_goes_on_to_the_door(as_: As, asked: list[Any]) -> None:
    trace = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "vendor=1"}
    as_("operator").post("/api/models/m.1/predict", {"inputs": ["good"]}, headers=trace)
    assert asked[0][2]["trace"] == trace


@pytest.mark.parametrize("inputs", [["text"], [[1, 2.5, "x"]], [[[1]]], [{"a": 1}], [None, True, 3]])
def test_inputs_reach_the_model_as_they_are(api: APIClient, asked: list[Any], inputs: list[Any]) -> None:
    assert api.post("/api/models/m.1/predict", {"inputs": inputs}).status_code == 200
    assert asked[0][1] == inputs


def test_a_form_of_the_browsable_api_works(api: APIClient, asked: list[Any]) -> None:
    answer = api.post(
        "/api/models/m.1/predict",
        {"inputs": '["good"]'},
        format="multipart",
        headers={"Accept": "text/html"},
    )
    assert answer.status_code == 200
    assert asked[0][1] == ["good"]


def test_it_waits_by_the_policy_in_force(as_: As, asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    change({"LOAD_WAIT_SECONDS": 500}, user=None)
    monkeypatch.setattr(effective, "_lately", (float("-inf"), {}))
    as_("operator").post("/api/models/m.1/predict", {"inputs": ["good"]})
    assert asked[0][2]["timeout_seconds"] == config().PREDICT_TIMEOUT_SECONDS + 500 + client.GRACE_SECONDS


@pytest.mark.parametrize("count", [1, 500])
def test_the_only_queries_tell_who_asks(as_: As, asked: list[Any], monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    api = as_("operator")
    monkeypatch.setattr(effective, "_lately", (time.monotonic() + 3600.0, {}))  # the policy was read just now
    with CaptureQueriesContext(connection) as captured:
        assert api.post("/api/models/m.1/predict", {"inputs": ["x"] * count}).status_code == 200
    tables = ("accounts_apitoken", "auth_user_user_permissions", "auth_user_groups")
    assert [any(table in query["sql"] for table in tables) for query in captured] == [True] * 3


# httpcore leaves a socket that could not connect to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_503_when_nobody_listens_at_the_door(api: APIClient) -> None:
    answer = api.post("/api/models/m.1/predict", {"inputs": ["x"]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "loaderd_unreachable")
