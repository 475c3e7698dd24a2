"""Who may do what: each endpoint, asked by each kind of user."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from modelhub.accounts.models import ApiToken
from modelhub.inference import client as inference_client
from modelhub.lifecycle.models import Operation
from modelhub.registry.models import ModelVersion
from modelhub.telemetry.models import Alert
from tests.api.conftest import As, ControlSocket

M = "/api/models/sentiment-model-v1"
L = "/api/lineages/sentiment-model-v1"
BODIES: dict[str, dict[str, Any]] = {"POST": {}, "PATCH": {}, "PUT": {}}


def body_of(method: str, address: str) -> dict[str, Any] | None:
    if address.endswith("/predict"):
        return {"inputs": ["x"]}
    return {"model_id": "sentiment-model-v1"} if method == "PUT" and "/aliases/" in address else BODIES.get(method)


KINDS = ("anonymous", "viewer", "operator", "admin")
READ = (401, 200, 200, 200)
ACT = (401, 403, 200, 200)
ADMIN = (401, 403, 403, 200)

ENDPOINTS = [
    ("GET", "/api/", READ),
    ("GET", "/api/models/", READ),
    ("GET", M, READ),
    ("GET", f"{M}/performance", READ),
    ("GET", f"{M}/state-changes", READ),
    ("GET", f"{M}/samples", READ),
    ("GET", "/api/samples", READ),
    ("GET", "/api/models/unused", READ),
    ("GET", "/api/lineages/", READ),
    ("GET", L, READ),
    ("GET", f"{L}/history", READ),
    ("GET", f"{L}/aliases", READ),
    ("GET", f"{L}/traffic", READ),
    ("GET", f"{L}/comparison", (401, 404, 404, 404)),  # nothing was compared
    ("GET", "/api/alerts/", READ),
    ("GET", "/api/alerts/{alert}", READ),
    ("GET", "/api/policy", READ),
    ("GET", "/api/policy/changes", READ),
    ("GET", "/api/models/health", READ),
    ("GET", "/api/models/metrics", READ),
    ("GET", "/api/operations/", READ),
    ("GET", "/api/operations/{operation}", READ),
    ("GET", "/api/schema/", READ),
    ("GET", "/api/docs/", READ),
    ("OPTIONS", M, READ),
    ("POST", f"{M}/load", ACT),
    ("POST", f"{M}/unload", (401, 403, 409, 409)),  # a load waits
    ("POST", f"{M}/predict", ACT),
    ("POST", "/api/models/optimize-memory?dry_run=true", ACT),
    ("POST", f"{M}/load?dry_run=true", ACT),
    ("POST", f"{M}/activate?dry_run=true", ACT),
    ("POST", f"{L}/rollback?dry_run=true", (401, 403, 409, 409)),  # nothing was live before
    ("PUT", f"{L}/aliases/stable", ACT),
    ("DELETE", f"{L}/aliases/stable", (401, 403, 404, 404)),  # there is none
    ("PUT", f"{L}/traffic", ACT),
    ("POST", "/api/alerts/{alert}/acknowledge", ACT),
    ("POST", "/api/models/discover", ACT),
    ("GET", "/api/models/discover", (401, 404, 404, 404)),  # none has run
    ("POST", "/api/operations/{operation}/cancel", ACT),
    ("PATCH", M, ADMIN),
    ("POST", f"{M}/forget-canary", (401, 403, 403, 409)),  # none is recorded
    ("PATCH", "/api/policy", ADMIN),
    ("POST", f"{M}/approve", ADMIN),
    ("DELETE", f"{M}/approve", ADMIN),
    ("GET", "/api/none-such", (401, 404, 404, 404)),
    ("POST", "/api/models/none-such/load", (401, 403, 404, 404)),
    ("GET", "/livez", (200, 200, 200, 200)),
    ("GET", "/readyz", (200, 200, 200, 200)),
]


@pytest.fixture
def operation(loaded: ModelVersion) -> Operation:
    return Operation.objects.create(id=uuid.uuid4(), kind="load", version=loaded)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("method", "address", "wanted"), ENDPOINTS, ids=lambda value: str(value))
def test_matrix(
    as_: As,
    operation: Operation,
    open_alert: Alert,
    planner: ControlSocket,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    method: str,
    address: str,
    wanted: tuple[int, ...],
) -> None:
    monkeypatch.setattr(inference_client, "predict", lambda *args, **kwargs: {})
    if address.endswith("/load"):
        operation.delete()
    elif address.endswith("/unload"):
        # An unload is under way and a load waits behind it.
        Operation.objects.filter(pk=operation.pk).update(requested_at=timezone.now() + timedelta(minutes=1))
        Operation.objects.create(kind="unload", version=operation.version, requested_at=timezone.now())
    data = body_of(method, address)
    answer = as_(kind).generic(
        method,
        address.format(operation=operation.id, alert=open_alert.pk),
        *([json.dumps(data), "application/json"] if data is not None else []),
    )
    assert answer.status_code == wanted[KINDS.index(kind)], answer.content
    if answer.status_code == 401:
        assert answer.headers["WWW-Authenticate"] == "Token"
        assert answer.json()["error"]["code"] == "not_authenticated"
    if answer.status_code == 403:
        assert answer.json()["error"]["code"] == "permission_denied"


class TestTokens:
    def test_an_unknown_token_is_refused(self, db: None) -> None:
        api = APIClient()
        api.credentials(HTTP_AUTHORIZATION="Token " + "0" * 64)
        answer = api.get("/api/models/")
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "authentication_failed")
        assert answer.headers["WWW-Authenticate"] == "Token"

    @pytest.mark.parametrize("header", ["Token", "Token a b", "Token \xff\xfe", "Basic YTpi", "Bearer x", "\xff"])
    def test_a_header_that_makes_no_sense_is_refused(self, db: None, header: str) -> None:
        api = APIClient()
        api.credentials(HTTP_AUTHORIZATION=header)
        assert api.get("/api/models/").status_code == 401

    @pytest.mark.usefixtures("loaderd_is_heard")
    def test_an_expired_token_is_refused(self, as_: As) -> None:
        api = as_("viewer")
        assert api.get("/api/models/").status_code == 200
        ApiToken.objects.update(expiry=timezone.now())
        answer = api.get("/api/models/")
        assert answer.status_code == 401
        assert "expired" in answer.json()["error"]["message"]

    def test_the_token_of_an_inactive_user_is_refused(self, as_: As) -> None:
        api = as_("viewer")
        User.objects.update(is_active=False)
        assert api.get("/api/models/").status_code == 401


class TestSessions:
    """A browser needs the CSRF token to change something; a token needs none."""

    @pytest.fixture
    def browser(self, loaded: ModelVersion) -> Client:
        browser = Client(enforce_csrf_checks=True)
        browser.force_login(User.objects.create_superuser("boss"))
        return browser

    def test_reading_needs_no_csrf_token(self, browser: Client) -> None:
        assert browser.get("/api/models/").status_code == 200

    def test_changing_without_it_is_refused(self, browser: Client) -> None:
        answer = browser.post(f"{M}/load")
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "permission_denied")
        assert "CSRF" in answer.json()["error"]["message"]

    def test_changing_with_it_works(self, browser: Client) -> None:
        browser.get(f"{M}/load", headers={"Accept": "text/html"})
        token = browser.cookies["csrftoken"].value
        assert browser.post(f"{M}/load", headers={"X-CSRFToken": token}).status_code == 200

    def test_a_token_needs_none(self, loaded: ModelVersion, as_: As) -> None:
        api = as_("admin")
        api.handler.enforce_csrf_checks = True
        assert api.post(f"{M}/load").status_code == 200


def test_the_message_names_the_permission(as_: As, loaded: ModelVersion) -> None:
    message = as_("viewer").post(f"{M}/load").json()["error"]["message"]
    assert "viewer lacks the permission registry.load_modelversion" in message
