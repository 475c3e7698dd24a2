"""Every error has one shape, and tells no more than its reader may know."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from django.db import InterfaceError, OperationalError
from rest_framework.test import APIClient

from loaderd import errors
from modelhub.api.views import models as views
from modelhub.conf import config
from modelhub.inference import client
from modelhub.registry.models import ModelVersion

PREDICT = "/api/models/sentiment-model-v1/predict"

pytestmark = pytest.mark.usefixtures("loaded")


def shape(answer: Any) -> tuple[int, str]:
    body = answer.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["code", "message", "details"]
    assert isinstance(body["error"]["message"], str)
    assert body["error"]["message"]
    assert isinstance(body["error"]["details"], dict)
    return answer.status_code, body["error"]["code"]


def break_with(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(views, "loader_view", fail)


@pytest.mark.parametrize("address", ["/api/none-such", "/api/models/x/y/z", "/api/operations/7", "/api/models/a/loadd"])
@pytest.mark.parametrize("method", ["get", "post", "delete", "options"])
def test_404_at_an_unknown_address(api: APIClient, address: str, method: str) -> None:
    assert shape(getattr(api, method)(address)) == (404, "not_found")


@pytest.mark.parametrize("model_id", ["none-such", "%00", "a%00b", "'; drop table", "x" * 3000, "..", "%FF"])
def test_404_for_an_unknown_model(api: APIClient, model_id: str) -> None:
    assert shape(api.get(f"/api/models/{model_id}")) == (404, "model_not_found")


@pytest.mark.parametrize("operation_id", ["00000000-0000-0000-0000-000000000000", "-" * 36])
def test_404_for_an_unknown_operation(api: APIClient, operation_id: str) -> None:
    answer = api.get(f"/api/operations/{operation_id}")
    assert shape(answer) == (404, "not_found")
    told = f"No operation has the id {operation_id}; GET /api/operations/ lists them."
    assert answer.json()["error"]["message"] == told


@pytest.mark.parametrize("address", ["/api/alerts/7", "/api/alerts/7/acknowledge"])
def test_404_for_an_unknown_alert(api: APIClient, address: str) -> None:
    answer = api.post(address) if address.endswith("acknowledge") else api.get(address)
    assert shape(answer) == (404, "not_found")
    assert answer.json()["error"]["message"] == "No alert has the id 7; GET /api/alerts/ lists them."


def test_405(api: APIClient) -> None:
    answer = api.put("/api/models/sentiment-model-v1", {})
    assert shape(answer) == (405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, PATCH, HEAD, OPTIONS"


def test_406(api: APIClient) -> None:
    assert shape(api.get("/api/models/", headers={"Accept": "image/png"})) == (406, "not_acceptable")


def test_415(api: APIClient) -> None:
    assert shape(api.post(PREDICT, "x", content_type="text/plain")) == (415, "unsupported_media_type")


@pytest.mark.parametrize("text", ["{", '{"inputs": [NaN]}', "\xff"])
def test_400_for_what_is_no_json(api: APIClient, text: str) -> None:
    assert shape(api.generic("POST", PREDICT, text, "application/json")) == (400, "malformed_request")


@pytest.mark.parametrize("body", [{}, {"inputs": "text"}, {"inputs": []}, {"inputs": None}, [], "x", 7, None])
def test_400_for_a_body_that_does_not_fit(api: APIClient, body: Any) -> None:
    assert shape(api.post(PREDICT, body, format="json")) == (400, "invalid_input")


def test_413_past_the_limit(api: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config(), "API_MAX_BODY_MB", 1)
    answer = api.post(PREDICT, {"inputs": ["x" * 1024 * 1024]})
    assert shape(answer) == (413, "body_too_large")
    assert "API_MAX_BODY_MB" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "error_class",
    [
        errors.InvalidInput,
        errors.UnknownModel,
        errors.ModelNotLoaded,
        errors.Overloaded,
        errors.PredictionFailed,
        errors.LoaderUnreachable,
        errors.ModelProcessDied,
        errors.ShuttingDown,
        errors.ModelTimeout,
        errors.PermissionDenied,
    ],
    ids=lambda found: found.code,
)
def test_errors_of_loaderd_keep_their_status_code_and_facts(
    api: APIClient, monkeypatch: pytest.MonkeyPatch, error_class: type[errors.LoaderdError]
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error_class("It failed.", model_id="m")

    monkeypatch.setattr(client, "predict", fail)
    answer = api.post(PREDICT, {"inputs": ["x"]})
    assert shape(answer) == (error_class.http_status, error_class.code)
    assert answer.json()["error"] == {"code": error_class.code, "message": "It failed.", "details": {"model_id": "m"}}


@pytest.mark.parametrize("error", [OperationalError("no such host db.internal"), InterfaceError("closed")])
@pytest.mark.parametrize("accept", ["application/json", "text/html"])
def test_503_while_the_database_is_away(
    api: APIClient, monkeypatch: pytest.MonkeyPatch, error: Exception, accept: str
) -> None:
    break_with(monkeypatch, error)
    answer = api.get("/api/models/", headers={"Accept": accept})
    assert shape(answer) == (503, "database_away")
    assert answer.headers["Retry-After"] == "5"
    assert "db.internal" not in answer.content.decode()


def test_503_when_the_user_cannot_be_looked_up(api: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise OperationalError("away")

    monkeypatch.setattr("modelhub.accounts.authentication.TokenAuthentication.authenticate_credentials", fail)
    assert shape(api.get("/api/models/", headers={"Accept": "text/html"})) == (503, "database_away")


def test_500_is_logged_with_its_traceback_and_leaks_nothing(
    api: APIClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    break_with(monkeypatch, RuntimeError("the secret is 42"))
    with caplog.at_level(logging.ERROR, logger="modelhub.api.errors"):
        answer = api.get("/api/models/")
    assert shape(answer) == (500, "internal_error")
    assert "secret" not in answer.content.decode()
    assert answer.json()["error"]["details"]["reference"] in caplog.text
    assert "RuntimeError: the secret is 42" in caplog.text


def test_the_field_that_does_not_fit_is_named(api: APIClient) -> None:
    answer = api.patch("/api/models/sentiment-model-v1", {"threads": 0, "max_batch_size": "many"})
    error = answer.json()["error"]
    assert set(error["details"]) == {"threads", "max_batch_size"}
    assert error["message"].startswith("threads: ")
    assert ModelVersion.objects.get().threads is None
