"""A request is allowed or refused, and written with its task in one transaction, once."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection, transaction
from django.utils import timezone
from django_q.models import OrmQ

from loaderd.client import LoaderClient
from loaderd.errors import (
    ArtifactRefused,
    LoaderdError,
    LoaderUnreachable,
    PermissionDenied,
    StateForbids,
    UnknownFramework,
    UnknownModel,
)
from modelhub.lifecycle.actions import cancel, request_load, request_unload
from modelhub.lifecycle.models import LoaderStatus, Operation, OperationStatus
from modelhub.registry.models import ModelVersion
from tests.deadline import wait_until
from tests.lifecycle.conftest import MakeVersion, in_thread
from tests.lifecycle.fake_loaderd import FakeLoaderd

pytestmark = pytest.mark.django_db(transaction=True)


def desired_state(version: ModelVersion) -> str:
    return ModelVersion.objects.values_list("desired_state", flat=True).get(pk=version.pk)


def assert_nothing_changed(version: ModelVersion) -> None:
    assert not Operation.objects.exists()
    assert not OrmQ.objects.exists()
    assert desired_state(version) == "unloaded"


def test_a_load_writes_wish_operation_and_task(
    version: ModelVersion, admin: User, loaderd_is_heard: LoaderStatus
) -> None:
    operation = request_load(version, user=admin, source="api", reason="it is Monday")
    stored = Operation.objects.get()
    assert stored == operation
    assert (stored.kind, stored.status, stored.source, stored.reason) == ("load", "queued", "api", "it is Monday")
    assert (stored.requested_by, stored.requested_by_name) == (admin, "ada")
    assert desired_state(version) == "loaded"
    assert OrmQ.objects.get().task["args"] == (str(operation.pk),)
    assert stored.parameters == {"desired_before": "unloaded"}


def test_the_system_may_ask_without_a_user(version: ModelVersion, loaderd_is_heard: LoaderStatus) -> None:
    operation = request_load(version, user=None, source="reconcile")
    assert (operation.requested_by, operation.requested_by_name) == (None, "")


@pytest.mark.parametrize(("ask", "permission"), [(request_load, "load"), (request_unload, "unload")])
def test_it_needs_the_permission_of_its_kind(
    version: ModelVersion, loaderd_is_heard: LoaderStatus, ask: Any, permission: str
) -> None:
    user = User.objects.create_user("grace")
    with pytest.raises(PermissionDenied, match=f"grace may not .* registry.{permission}_modelversion"):
        ask(version, user=user, source="api")
    assert_nothing_changed(version)
    user.user_permissions.add(Permission.objects.get(codename=f"{permission}_modelversion"))
    assert ask(version, user=User.objects.get(pk=user.pk), source="api").requested_by == user


def test_an_inactive_user_may_do_nothing(version: ModelVersion, loaderd_is_heard: LoaderStatus, admin: User) -> None:
    admin.is_active = False
    with pytest.raises(PermissionDenied):
        request_load(version, user=admin, source="api")


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        (
            {"artifact_format": "pickle"},
            ArtifactRefused,
            "is a pickle, which can run any code.*manage.py approve topic-v1",
        ),
        ({"artifact_format": "pickle", "approved_digest": "b" * 64}, ArtifactRefused, "if you trust these bytes"),
        ({"refusal": "metadata.json is no JSON."}, ArtifactRefused, "metadata.json is no JSON"),
        ({"missing_since": timezone.now()}, StateForbids, "not in the store any more.*manage.py discover"),
        ({"framework": "abacus"}, UnknownFramework, "abacus"),
    ],
)
def test_an_artifact_that_may_not_be_loaded_is_refused(
    make_version: MakeVersion,
    loaderd_is_heard: LoaderStatus,
    fields: dict[str, Any],
    error: type[LoaderdError],
    says: str,
) -> None:
    version = make_version(**fields)
    with pytest.raises(error, match=says):
        request_load(version, user=None, source="api")
    assert_nothing_changed(version)


def test_approval_of_exactly_these_bytes_lets_a_pickle_through(
    make_version: MakeVersion, loaderd_is_heard: LoaderStatus
) -> None:
    version = make_version(artifact_format="pickle", approved_digest="a" * 64)
    assert request_load(version, user=None, source="api").status == "queued"


def test_it_is_checked_against_the_row_and_not_against_what_the_caller_read_earlier(
    version: ModelVersion, loaderd_is_heard: LoaderStatus
) -> None:
    ModelVersion.objects.update(refusal="The directory is a symlink.")
    with pytest.raises(ArtifactRefused):
        request_load(version, user=None, source="api")


def test_a_version_that_was_deleted_is_unknown(version: ModelVersion, loaderd_is_heard: LoaderStatus) -> None:
    ModelVersion.objects.all().delete()
    with pytest.raises(UnknownModel):
        request_load(version, user=None, source="api")


@pytest.mark.parametrize("ask", [request_load, request_unload])
def test_without_loaderd_the_command_is_refused_and_nothing_changes(version: ModelVersion, ask: Any) -> None:
    with pytest.raises(LoaderUnreachable, match=r"never run.*refused and nothing has changed"):
        ask(version, user=None, source="api")
    LoaderStatus.objects.create(pk=1, observed_at=timezone.now() - timezone.timedelta(minutes=2))
    with pytest.raises(
        LoaderUnreachable, match=r"last heard at 2.*has died, which `make up` mends by itself, or hangs: see its log"
    ):
        ask(version, user=None, source="api")
    LoaderStatus.objects.update(observed_at=timezone.now(), stopped_at=timezone.now())
    with pytest.raises(LoaderUnreachable, match=r"was stopped at 2.*start it with `make up`, then repeat"):
        ask(version, user=None, source="api")
    assert_nothing_changed(version)


def test_a_second_load_joins_the_first(version: ModelVersion, loaderd_is_heard: LoaderStatus) -> None:
    first = request_load(version, user=None, source="api")
    Operation.objects.update(status=OperationStatus.RUNNING)
    assert request_load(version, user=None, source="admin").pk == first.pk
    assert OrmQ.objects.count() == 1


def test_loads_at_the_same_time_are_one_operation(version: ModelVersion, loaderd_is_heard: LoaderStatus) -> None:
    together = threading.Barrier(8)
    ids: list[Any] = []

    def ask() -> None:
        together.wait(10)
        ids.append(request_load(version, user=None, source="api").pk)

    for thread in [in_thread(ask) for _ in range(8)]:
        thread.join(20)
    assert len(ids) == 8
    assert len(set(ids)) == 1
    assert Operation.objects.count() == OrmQ.objects.count() == 1


def test_an_unload_during_a_load_waits_behind_it(version: ModelVersion, loaderd_is_heard: LoaderStatus) -> None:
    load = request_load(version, user=None, source="api")
    unload = request_unload(version, user=None, source="api")
    assert unload.pk != load.pk
    assert unload.status == "queued"
    assert unload.requested_at > load.requested_at
    assert desired_state(version) == "unloaded"


def test_a_load_behind_an_unload_behind_a_load_is_refused(
    version: ModelVersion, loaderd_is_heard: LoaderStatus
) -> None:
    request_load(version, user=None, source="api")
    request_unload(version, user=None, source="api")
    with pytest.raises(StateForbids, match=r"an? unload waits behind it"):
        request_load(version, user=None, source="api")


def test_loading_what_is_loaded_ends_at_once_with_the_present_load(
    make_version: MakeVersion, loaderd_is_heard: LoaderStatus
) -> None:
    version = make_version(status="loaded", last_load_seconds=0.25, private_bytes=1000)
    operation = request_load(version, user=None, source="api")
    operation.refresh_from_db()
    assert operation.status == "succeeded"
    assert operation.finished_at is not None
    assert operation.result == {
        "model_id": "topic-v1",
        "status": "loaded",
        "was_loaded": True,
        "load_seconds": 0.25,
        "private_bytes": 1000,
        "gpu_bytes": None,
    }
    assert not OrmQ.objects.exists()


def test_unloading_what_is_not_loaded_says_so(version: ModelVersion, loaderd_is_heard: LoaderStatus) -> None:
    operation = request_unload(version, user=None, source="api")
    assert (operation.status, operation.result) == ("succeeded", {"model_id": "topic-v1", "status": "not_loaded"})
    assert not OrmQ.objects.exists()


def test_unloading_what_is_wished_and_not_loaded_yet_reaches_loaderd(
    make_version: MakeVersion, loaderd_is_heard: LoaderStatus
) -> None:
    """loaderd just started, or an activation made room: the load is on its way and not reported."""
    version = make_version(status="unloaded", desired_state="loaded")
    assert request_unload(version, user=None, source="api").status == "queued"
    assert desired_state(version) == "unloaded"
    assert OrmQ.objects.count() == 1


def test_a_reason_is_kept_without_what_postgres_refuses(version: ModelVersion, loaderd_is_heard: LoaderStatus) -> None:
    request_load(version, user=None, source="api", reason="nul\0 and \ud800 " + "x" * 600)
    stored = Operation.objects.get().reason
    assert stored.startswith("nul\N{REPLACEMENT CHARACTER} and ? x")
    assert len(stored) == 500


def test_unloading_a_model_in_error_reaches_loaderd_which_forgets_the_error(
    make_version: MakeVersion, loaderd_is_heard: LoaderStatus
) -> None:
    assert request_unload(make_version(status="error"), user=None, source="api").status == "queued"


def test_a_request_costs_a_bounded_number_of_queries(
    version: ModelVersion, admin: User, loaderd_is_heard: LoaderStatus, django_assert_max_num_queries: Any
) -> None:
    with django_assert_max_num_queries(10):
        request_load(version, user=admin, source="api")


def test_cancelling_a_queued_load_ends_it_and_takes_the_wish_back(
    version: ModelVersion, admin: User, loaderd_is_heard: LoaderStatus
) -> None:
    operation = cancel(request_load(version, user=admin, source="api"), user=admin)
    assert (operation.status, operation.error["code"]) == ("cancelled", "cancelled")
    assert desired_state(version) == "unloaded"


def test_cancelling_a_running_load_tells_loaderd(
    version: ModelVersion, admin: User, silent_loaderd: FakeLoaderd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelhub.lifecycle.actions.CANCEL_SECONDS", 0.1)
    operation = request_load(version, user=admin, source="api")
    Operation.objects.update(status=OperationStatus.RUNNING)
    assert cancel(operation, user=admin).status == "running"
    assert silent_loaderd.received == [{"command": "cancel", "operation_id": str(operation.pk)}]
    assert desired_state(version) == "loaded", "it may be loaded in this moment; how it ends decides"


def test_a_cancel_is_noted_before_loaderd_hears_of_it_and_not_when_loaderd_refuses(
    version: ModelVersion, admin: User, silent_loaderd: FakeLoaderd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelhub.lifecycle.actions.CANCEL_SECONDS", 0.1)
    operation = request_load(version, user=admin, source="api")
    Operation.objects.update(status=OperationStatus.RUNNING)
    noted = []

    def answer(is_cancelled: bool) -> None:
        def told(self: Any, operation_id: str) -> dict[str, Any]:
            noted.append(Operation.objects.get(pk=operation_id).parameters)
            return {"cancelled": is_cancelled}

        monkeypatch.setattr(LoaderClient, "cancel", told)

    answer(False)
    with pytest.raises(StateForbids, match="nothing is left to cancel"):
        cancel(operation, user=admin)
    assert Operation.objects.get().parameters == {"desired_before": "unloaded"}
    answer(True)
    assert cancel(operation, user=admin).parameters == {"desired_before": "unloaded", "cancel_requested": True}
    assert noted == [{"desired_before": "unloaded", "cancel_requested": True}] * 2


def test_what_has_ended_or_is_an_unload_that_began_cannot_be_cancelled(
    version: ModelVersion, admin: User, loaderd_is_heard: LoaderStatus
) -> None:
    ended = request_unload(version, user=admin, source="api")
    with pytest.raises(StateForbids, match="is over: it succeeded"):
        cancel(ended, user=admin)
    ModelVersion.objects.update(status="loaded")
    begun = request_unload(version, user=admin, source="api")
    Operation.objects.filter(pk=begun.pk).update(status=OperationStatus.RUNNING)
    with pytest.raises(StateForbids, match="unload of topic-v1 has begun"):
        cancel(begun, user=admin)
    with pytest.raises(PermissionDenied):
        cancel(begun, user=User.objects.create_user("grace"))


def test_cancelling_a_queued_unload_keeps_the_model_wished(
    make_version: MakeVersion, admin: User, loaderd_is_heard: LoaderStatus
) -> None:
    version = make_version(status="loaded", desired_state="loaded")
    unload = request_unload(version, user=admin, source="api")
    assert desired_state(version) == "unloaded"
    assert cancel(unload, user=admin).status == "cancelled"
    assert desired_state(version) == "loaded"


def test_cancelling_a_queued_load_waits_for_who_decides_over_the_model(
    version: ModelVersion, admin: User, loaderd_is_heard: LoaderStatus
) -> None:
    """Otherwise it would put the wish of a command back that is being written at this moment."""
    load = request_load(version, user=admin, source="api")
    with transaction.atomic():
        ModelVersion.objects.select_for_update(no_key=True).get(pk=version.pk)
        cancelling = in_thread(lambda: cancel(load, user=admin))
        wait_until(lambda: _is_waiting_for_a_lock("FOR NO KEY UPDATE"))
        Operation.objects.create(kind="activate", version=version)
    cancelling.join(20)
    assert Operation.objects.get(pk=load.pk).status == "cancelled"
    assert desired_state(version) == "loaded", "the activation wishes it"


def _is_waiting_for_a_lock(statement: str) -> bool:
    with connection.cursor() as cursor:
        # A transaction sees the activity as it was at its first look.
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE %s",
            [f"%{statement}%"],
        )
        return bool(cursor.fetchone()[0])


@pytest.mark.parametrize("in_order", [True, False])
def test_cancelling_a_load_and_the_unload_behind_it_leaves_nothing_wished(
    version: ModelVersion, admin: User, loaderd_is_heard: LoaderStatus, in_order: bool
) -> None:
    operations = [request_load(version, user=admin, source="api"), request_unload(version, user=admin, source="api")]
    first, second = operations if in_order else reversed(operations)
    cancel(first, user=admin)
    assert desired_state(version) == ("unloaded" if in_order else "loaded")
    cancel(second, user=admin)
    assert desired_state(version) == "unloaded"
