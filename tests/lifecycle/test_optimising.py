"""Memory optimisation: one at a time, for who may unload; and what it would look at."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from django_q.models import OrmQ

from loaderd.errors import LoaderUnreachable, PermissionDenied, StateForbids
from modelhub.lifecycle.actions import cancel
from modelhub.lifecycle.models import LoaderStatus, Operation, OperationStatus
from modelhub.lifecycle.optimising import find_unused, request_optimize
from modelhub.lifecycle.tasks import dispatch
from modelhub.policy.effective import change
from tests.lifecycle.conftest import MakeVersion, in_thread
from tests.lifecycle.fake_loaderd import FakeLoaderd

pytestmark = pytest.mark.django_db


@pytest.mark.django_db(transaction=True)
def test_optimisations_at_the_same_time_are_one(loaderd_is_heard: LoaderStatus) -> None:
    together = threading.Barrier(8)
    ids: list[Any] = []

    def ask() -> None:
        together.wait(10)
        ids.append(request_optimize(user=None, source="api").pk)

    for thread in [in_thread(ask) for _ in range(8)]:
        thread.join(20)
    assert (len(ids), len(set(ids))) == (8, 1)
    assert Operation.objects.count() == OrmQ.objects.count() == 1
    Operation.objects.update(status=OperationStatus.SUCCEEDED)
    assert request_optimize(user=None, source="api").pk not in ids


def test_it_needs_the_permission_to_unload_and_a_loaderd(admin: User) -> None:
    with pytest.raises(PermissionDenied, match=r"grace may not optimise memory.*registry\.unload_modelversion"):
        request_optimize(user=User.objects.create_user("grace"), source="api")
    with pytest.raises(LoaderUnreachable, match="the optimisation was refused and nothing has changed"):
        request_optimize(user=admin, source="api")
    assert not Operation.objects.exists()


def test_it_is_handed_over_and_cannot_be_cancelled_then(silent_loaderd: FakeLoaderd, admin: User) -> None:
    operation = request_optimize(user=admin, source="api", reason="tidy up")
    dispatch(str(operation.pk))
    assert silent_loaderd.received == [{"command": "optimize", "operation_id": str(operation.pk), "user": "ada"}]
    operation.refresh_from_db()
    assert (operation.status, operation.version, operation.reason) == ("running", None, "tidy up")
    with pytest.raises(StateForbids, match="memory optimisation has begun"):
        cancel(operation, user=admin)


def test_one_in_the_queue_is_cancelled_and_one_that_loaderd_does_not_take_fails(
    loaderd_is_heard: LoaderStatus, admin: User
) -> None:
    cancelled = cancel(request_optimize(user=admin, source="api"), user=admin)
    assert (cancelled.status, cancelled.error["message"]) == (
        "cancelled",
        "The memory optimisation was cancelled before it began.",
    )
    failed = request_optimize(user=admin, source="api")
    dispatch(str(failed.pk))
    failed.refresh_from_db()
    assert (failed.status, failed.error["code"]) == ("failed", "loaderd_unreachable")


def test_unused_is_what_nobody_asked_or_loaded_for_that_long(
    make_version: MakeVersion, django_assert_num_queries: Any
) -> None:
    def ago(hours: float) -> Any:
        return timezone.now() - timedelta(hours=hours)

    make_version("busy", status="loaded", last_used_at=ago(0.1), last_loaded_at=ago(90))
    make_version("idle", status="loaded", last_used_at=ago(30), last_loaded_at=ago(90), pinned=True)
    make_version("never-asked", status="loaded", last_loaded_at=ago(50))
    make_version("just-loaded", status="loaded", last_used_at=ago(30), last_loaded_at=ago(0.1))
    make_version("new", status="loaded", last_loaded_at=ago(0.1))
    make_version("not-loaded", last_used_at=ago(90), last_loaded_at=ago(90))
    with django_assert_num_queries(2):
        found = [(version.model_id, version.lineage.name) for version in find_unused()]
    assert found == [("never-asked", "never-asked"), ("idle", "idle")]
    assert [version.model_id for version in find_unused(40)] == ["never-asked"]
    change({"UNUSED_MODEL_TIMEOUT_HOURS": 60.0}, user=None)
    assert find_unused() == []
