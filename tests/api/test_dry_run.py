"""A dry run answers loaderd's plan, whatever it says, and changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from django_q.models import OrmQ
from rest_framework.test import APIClient

from loaderd.errors import LoaderUnreachable
from modelhub.lifecycle.models import LineageChange, Operation
from modelhub.registry.models import Model, ModelVersion
from tests.api.conftest import ControlSocket, MakeVersion

REFUSED = {
    "decision": "refused",
    "needed_bytes": 900,
    "kept": [{"model_id": "a", "bytes": 500, "reason": "pinned"}],
    "sentence": "It does not fit.",
}
COMMANDS = [
    ("/api/models/sentiment-v1/load", "load", "sentiment-v1"),
    ("/api/models/sentiment/unload", "unload", "sentiment-v2"),  # the live version
    ("/api/models/sentiment-v10/activate", "activate", "sentiment-v10"),
    ("/api/models/optimize-memory", "optimize", None),
]


@pytest.fixture(autouse=True)
def nothing_changes(lineage: Model, planner: ControlSocket) -> Any:
    planner.plan = REFUSED
    before = list(ModelVersion.objects.order_by("pk").values())
    yield
    assert list(ModelVersion.objects.order_by("pk").values()) == before
    assert not Operation.objects.exists()
    assert not OrmQ.objects.exists()
    assert not LineageChange.objects.exists()


@pytest.mark.parametrize(("address", "action", "model_id"), COMMANDS)
@pytest.mark.parametrize("way", ["body", "query"])
def test_it_answers_the_plan(
    api: APIClient, planner: ControlSocket, address: str, action: str, model_id: str | None, way: str
) -> None:
    answer = api.post(address, {"dry_run": True}) if way == "body" else api.post(f"{address}?dry_run=true")
    assert (answer.status_code, answer.json()) == (200, REFUSED)
    (asked,) = planner.received
    assert (asked["command"], asked["action"]) == ("plan", action)
    assert (asked["model_id"] or (asked["spec"] or {}).get("model_id")) == model_id


def test_a_rollback_plans_the_version_that_was_live_before(
    api: APIClient, lineage: Model, planner: ControlSocket
) -> None:
    address = "/api/lineages/sentiment/rollback?dry_run=true"
    answer = api.post(address)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "state_forbids")
    assert api.post(address, {"to": "sentiment-v1"}).json() == REFUSED
    assert planner.received[0]["spec"]["model_id"] == "sentiment-v1"


def test_a_rollback_to_the_live_version_is_refused_as_without_a_dry_run(api: APIClient, planner: ControlSocket) -> None:
    answers = [
        api.post(f"/api/lineages/sentiment/rollback{more}", {"to": "sentiment-v2"}) for more in ("?dry_run=1", "")
    ]
    assert [(answer.status_code, answer.json()["error"]["message"]) for answer in answers] == [
        (409, "sentiment-v2 is live already.")
    ] * 2
    assert not planner.received


@pytest.mark.parametrize(
    ("address", "body"),
    [("/api/models/sentiment-v1/activate", {}), ("/api/lineages/sentiment/rollback", {"to": "sentiment-v1"})],
    ids=["activate", "rollback"],
)
def test_a_gap_that_nobody_allowed_is_refused_as_the_command_is(
    api: APIClient, planner: ControlSocket, address: str, body: dict[str, Any]
) -> None:
    gap = {"decision": "fits", "model_id": "sentiment-v1", "replaces": "sentiment-v2", "sentence": "It fits then."}
    planner.plan = {**gap, "needs_gap": True}
    refused = api.post(address, {**body, "dry_run": True}).json()
    assert (refused["decision"], refused["needs_gap"]) == ("refused", True)
    assert refused["sentence"].startswith(
        "sentiment-v1 does not fit beside sentiment-v2, which is live; with allow_gap"
    )
    assert api.post(address, {**body, "dry_run": True, "allow_gap": True}).json() == planner.plan
    planner.plan = {**gap, "needs_gap": False}
    assert api.post(address, {**body, "dry_run": True}).json() == planner.plan


@pytest.mark.parametrize("value", ["perhaps", ""])
def test_a_value_that_makes_no_sense_is_refused(api: APIClient, value: str) -> None:
    answer = api.post(f"/api/models/sentiment-v1/load?dry_run={value}")
    assert (answer.status_code, list(answer.json()["error"]["details"])) == (400, ["dry_run"])


def test_what_may_not_be_loaded_is_refused_at_once(
    api: APIClient, planner: ControlSocket, make_version: MakeVersion
) -> None:
    pickled = make_version("pickled", artifact_format="pickle")
    answer = api.post("/api/models/pickled/load?dry_run=true")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "artifact_refused")
    assert not planner.received
    pickled.delete()


@pytest.mark.usefixtures("loaderd_is_silent")
@pytest.mark.parametrize(("address", "action", "model_id"), COMMANDS)
def test_a_silent_loaderd_is_not_waited_for(
    api: APIClient, planner: ControlSocket, address: str, action: str, model_id: str | None
) -> None:
    answer = api.post(f"{address}?dry_run=true")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "loaderd_unreachable")
    told = answer.json()["error"]["message"]
    assert "last heard at" in told
    assert "its process (99) has died, which `make up` mends by itself, or hangs" in told
    assert not planner.received


def test_503_without_loaderd(api: APIClient, planner: ControlSocket) -> None:
    planner.refuse_with = LoaderUnreachable("It is away.")
    assert api.post("/api/models/sentiment-v1/load?dry_run=true").status_code == 503
