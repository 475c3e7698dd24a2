"""The list of operations."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

from loaderd.errors import LoadFailed
from modelhub.lifecycle.models import Operation
from tests.api.conftest import MakeVersion


@pytest.fixture(autouse=True)
def operations(make_version: MakeVersion) -> list[Operation]:
    """Oldest first."""
    now = timezone.now()
    one, two = make_version("one"), make_version("two")
    made = [(one, "load", "failed"), (two, "load", "succeeded"), (two, "unload", "running")]
    return [
        Operation.objects.create(
            version=version,
            kind=kind,
            status=status,
            requested_at=now + timedelta(seconds=number),
            error=LoadFailed("it broke", bytes=7).to_message() if status == "failed" else None,
        )
        for number, (version, kind, status) in enumerate(made)
    ]


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", [2, 1, 0]),
        ("?kind=load", [1, 0]),
        ("?status=running", [2]),
        ("?model=two", [2, 1]),
        ("?model=none-such", []),
        ("?limit=1&offset=1", [1]),
    ],
)
def test_newest_first_and_narrowed(api: APIClient, operations: list[Operation], query: str, wanted: list[int]) -> None:
    body = api.get(f"/api/operations/{query}").json()
    assert [operation["id"] for operation in body] == [str(operations[number].id) for number in wanted]


@pytest.mark.parametrize("query", ["kind=x", "status=x", "model=%00"])
def test_what_makes_no_sense_is_refused(api: APIClient, query: str) -> None:
    assert api.get(f"/api/operations/?{query}").status_code == 400


def test_an_error_is_told_as_in_an_error_response(api: APIClient, operations: list[Operation]) -> None:
    body = api.get(f"/api/operations/{operations[0].id}").json()
    assert body["error"] == {"code": "load_failed", "message": "it broke", "details": {"bytes": 7}}
    assert body["requested_at"] == pytest.approx(operations[0].requested_at.timestamp())


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_operations_are_only_read(api: APIClient, operations: list[Operation], method: str) -> None:
    assert getattr(api, method)(f"/api/operations/{operations[0].id}", {}).status_code == 405


def test_the_number_of_queries_does_not_grow(api: APIClient) -> None:
    with CaptureQueriesContext(connection) as captured:
        api.get("/api/operations/")
    assert len(captured) == 3  # token, count, rows
    assert "manifest" not in captured[2]["sql"]
