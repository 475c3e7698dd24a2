"""The admin shows operations and state changes with a constant number of queries, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from modelhub.lifecycle.models import LoaderStatus, Operation, StateChange
from tests.lifecycle.conftest import MakeVersion

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def fill(make_version: MakeVersion) -> Callable[[int], None]:
    def fill(count: int) -> None:
        for number in range(count):
            version = make_version(f"m{number}-{count}")
            operation = Operation.objects.create(kind="load", version=version, requested_by_name="ada")
            StateChange.objects.create(
                version=version,
                from_state="unloaded",
                to_state="loading",
                actor="ada",
                operation=operation,
                at=timezone.now(),
            )

    return fill


@pytest.mark.parametrize("page", ["operation", "statechange", "loaderstatus"])
def test_a_list_costs_the_same_for_any_number_of_rows(
    client: Client, admin: User, fill: Callable[[int], None], page: str
) -> None:
    LoaderStatus.objects.create(pk=1, pid=7, observed_at=timezone.now())
    client.force_login(admin)
    counts = []
    for count in (2, 20):
        fill(count)
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert client.get(f"/admin/lifecycle/{page}/").status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1]
    assert not any("manifest" in query["sql"] for query in queries)


def test_rows_can_be_read_and_not_written(client: Client, admin: User, fill: Callable[[int], None]) -> None:
    fill(1)
    client.force_login(admin)
    for name, row in (("operation", Operation.objects.get()), ("statechange", StateChange.objects.get())):
        page = f"/admin/lifecycle/{name}/{row.pk}/change/"
        assert client.get(page).status_code == 200
        assert client.post(page, {"status": "succeeded"}).status_code == 403
        assert client.post(f"/admin/lifecycle/{name}/{row.pk}/delete/", {"post": "yes"}).status_code == 403
        assert client.get(f"/admin/lifecycle/{name}/add/").status_code == 403
    assert client.get("/admin/lifecycle/operation/?q=m0&status__exact=queued").status_code == 200
