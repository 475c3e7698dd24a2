"""Alerts: narrowed, acknowledged once, and gone when they are resolved."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

from modelhub.telemetry.models import Alert
from tests.api.conftest import MakeVersion


@pytest.fixture(autouse=True)
def made(make_version: MakeVersion) -> list[Alert]:
    """Oldest first: open, acknowledged, resolved."""
    now = timezone.now()
    version = make_version("one")
    states = [{}, {"acknowledged_at": now, "acknowledged_by_name": "ada"}, {"resolved_at": now}]
    return [
        Alert.objects.create(
            key=f"{kind}:one",
            kind=kind,
            version=version if kind == "error_rate" else None,
            message=f"{kind} it is.",
            value=7.0,
            threshold=5.0,
            opened_at=now + timedelta(seconds=number),
            last_seen_at=now,
            **state,
        )
        for number, (kind, state) in enumerate(zip(("error_rate", "memory", "memory"), states, strict=True))
    ]


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", [2, 1, 0]),
        ("?state=open", [0]),
        ("?state=acknowledged", [1]),
        ("?state=unresolved", [1, 0]),
        ("?state=resolved", [2]),
        ("?kind=memory&state=unresolved", [1]),
        ("?model=one", [0]),
        ("?limit=1&offset=1", [1]),
    ],
)
def test_newest_first_and_narrowed(api: APIClient, made: list[Alert], query: str, wanted: list[int]) -> None:
    assert [alert["id"] for alert in api.get(f"/api/alerts/{query}").json()] == [made[n].pk for n in wanted]


@pytest.mark.parametrize("query", ["state=x", "model=%00", "limit=0"])
def test_what_makes_no_sense_is_refused(api: APIClient, query: str) -> None:
    assert api.get(f"/api/alerts/?{query}").status_code == 400


def test_one_is_told(api: APIClient, made: list[Alert]) -> None:
    body = api.get(f"/api/alerts/{made[0].pk}").json()
    assert (body["state"], body["model_id"], body["message"]) == ("open", "one", "error_rate it is.")
    assert (body["value"], body["threshold"], body["acknowledged_by"]) == (7.0, 5.0, "")
    assert body["opened_at"] == pytest.approx(made[0].opened_at.timestamp())


def test_who_acknowledges_first_is_kept(api: APIClient, made: list[Alert]) -> None:
    body = api.post(f"/api/alerts/{made[0].pk}/acknowledge").json()
    assert (body["state"], body["acknowledged_by"]) == ("acknowledged", "admin")
    assert api.post(f"/api/alerts/{made[1].pk}/acknowledge").json()["acknowledged_by"] == "ada"


def test_what_is_resolved_is_not_acknowledged(api: APIClient, made: list[Alert]) -> None:
    answer = api.post(f"/api/alerts/{made[2].pk}/acknowledge")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "state_forbids")


def test_404_for_an_unknown_one(api: APIClient) -> None:
    assert api.post("/api/alerts/999999/acknowledge").status_code == 404
    assert api.get("/api/alerts/9999999999999999999").status_code == 404


def test_the_list_costs_three_queries(api: APIClient) -> None:
    with CaptureQueriesContext(connection) as captured:
        api.get("/api/alerts/")
    assert len(captured) == 3  # token, count, rows
    assert "manifest" not in captured[2]["sql"]
