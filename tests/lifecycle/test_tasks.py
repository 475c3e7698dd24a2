"""A command reaches loaderd once, in order, or ends with the reason why not."""

from __future__ import annotations

from functools import partial

import pytest
from django.contrib.auth.models import User

from loaderd.client import LoaderClient
from loaderd.errors import LoaderUnreachable, StateForbids
from modelhub.lifecycle.actions import request_load, request_unload
from modelhub.lifecycle.models import LoaderStatus, Operation, OperationStatus
from modelhub.lifecycle.tasks import MAX_ATTEMPTS, dispatch
from modelhub.lifecycle.versions import request_activate, request_rollback
from modelhub.registry.models import ModelVersion
from tests.lifecycle.conftest import MakeVersion
from tests.lifecycle.fake_loaderd import FakeLoaderd

pytestmark = pytest.mark.django_db(transaction=True)


def load(version: ModelVersion, user: User | None = None) -> Operation:
    return request_load(version, user=user, source="api")


def stored(operation: Operation) -> Operation:
    return Operation.objects.select_related("version").get(pk=operation.pk)


def test_a_load_is_handed_over_with_its_spec_and_user(
    version: ModelVersion, admin: User, silent_loaderd: FakeLoaderd
) -> None:
    operation = load(version, admin)
    dispatch(str(operation.pk))
    [command] = silent_loaderd.received
    assert (command["command"], command["operation_id"], command["user"]) == ("load", str(operation.pk), "ada")
    assert command["spec"]["model_id"] == "topic-v1"
    operation = stored(operation)
    assert (operation.status, operation.attempts) == ("running", 1)
    assert operation.started_at is not None


def test_an_unload_is_handed_over(version: ModelVersion, silent_loaderd: FakeLoaderd) -> None:
    ModelVersion.objects.update(status="loaded")
    operation = request_unload(version, user=None, source="python")
    dispatch(str(operation.pk))
    assert silent_loaderd.received == [
        {"command": "unload", "model_id": "topic-v1", "operation_id": str(operation.pk), "user": "system"}
    ]


@pytest.mark.parametrize("allow_gap", [False, True])
def test_an_activation_is_handed_over_with_its_spec_reason_and_gap(
    version: ModelVersion, admin: User, silent_loaderd: FakeLoaderd, allow_gap: bool
) -> None:
    operation = request_activate(version, user=admin, source="api", reason="better", allow_gap=allow_gap)
    dispatch(str(operation.pk))
    [command] = silent_loaderd.received
    spec = command.pop("spec")
    assert command == {
        "command": "activate",
        "operation_id": str(operation.pk),
        "user": "ada",
        "kind": "activate",
        "reason": "better",
        "allow_gap": allow_gap,
    }
    assert (spec["model_id"], spec["lineage"]) == ("topic-v1", "topic-v1")


def test_a_rollback_is_handed_over_as_one(version: ModelVersion, silent_loaderd: FakeLoaderd) -> None:
    operation = request_rollback(version.lineage, to=version, user=None, source="command")
    dispatch(str(operation.pk))
    [command] = silent_loaderd.received
    assert (command["command"], command["kind"], command["user"]) == ("activate", "rollback", "operator")


def test_what_was_measured_on_another_device_is_not_sent(version: ModelVersion, silent_loaderd: FakeLoaderd) -> None:
    ModelVersion.objects.update(measured_digest="a" * 64, measured_device="cpu", measured_peak_bytes=7)
    operation = load(version)
    dispatch(str(operation.pk))
    LoaderStatus.objects.update(facts={"gpus": [{"name": "H100"}]})
    dispatch(str(operation.pk))
    assert [command["spec"]["peak_bytes"] for command in silent_loaderd.received] == [7, None]


def test_the_task_of_an_earlier_release_is_understood(version: ModelVersion, silent_loaderd: FakeLoaderd) -> None:
    operation = load(version)
    dispatch(str(operation.pk), version.pk, "unloaded")
    assert stored(operation).status == "running"


def test_a_task_whose_model_was_deleted_is_done(version: ModelVersion, silent_loaderd: FakeLoaderd) -> None:
    operation = load(version)
    version.delete()
    dispatch(str(operation.pk))
    assert silent_loaderd.received == []


def test_an_activation_that_loaderd_does_not_take_puts_its_wish_back(
    version: ModelVersion, silent_loaderd: FakeLoaderd
) -> None:
    silent_loaderd.refuse_with = StateForbids("Not today.")
    operation = request_activate(version, user=None, source="api")
    assert stored(operation).version.desired_state == "loaded"
    dispatch(str(operation.pk))
    assert (stored(operation).status, stored(operation).version.desired_state) == ("failed", "unloaded")


def test_a_redelivered_task_is_harmless(version: ModelVersion, silent_loaderd: FakeLoaderd) -> None:
    operation = load(version)
    dispatch(str(operation.pk))
    began_at = stored(operation).started_at
    dispatch(str(operation.pk))
    assert len(silent_loaderd.received) == 2
    assert silent_loaderd.executed == [str(operation.pk)]
    assert (stored(operation).attempts, stored(operation).started_at) == (2, began_at)


def test_an_operation_that_has_ended_is_not_sent(version: ModelVersion, silent_loaderd: FakeLoaderd) -> None:
    operation = load(version)
    Operation.objects.update(status=OperationStatus.CANCELLED)
    dispatch(str(operation.pk))
    assert silent_loaderd.received == []
    assert stored(operation).status == "cancelled"


def test_without_loaderd_it_fails_and_the_wish_is_put_back(
    version: ModelVersion, loaderd_is_heard: LoaderStatus
) -> None:
    operation = load(version)
    dispatch(str(operation.pk))
    operation = stored(operation)
    assert (operation.status, operation.error["code"]) == ("failed", "loaderd_unreachable")
    assert operation.version.desired_state == "unloaded"


def test_a_wish_of_before_the_failed_load_stays(version: ModelVersion, loaderd_is_heard: LoaderStatus) -> None:
    ModelVersion.objects.update(desired_state="loaded", status="error")
    operation = load(version)
    dispatch(str(operation.pk))
    assert stored(operation).version.desired_state == "loaded"


def test_what_loaderd_refuses_fails_with_its_reason(version: ModelVersion, silent_loaderd: FakeLoaderd) -> None:
    silent_loaderd.refuse_with = StateForbids("Not today.", weekday="Monday")
    operation = load(version)
    dispatch(str(operation.pk))
    assert stored(operation).error == {"code": "state_forbids", "message": "Not today.", "facts": {"weekday": "Monday"}}


def test_a_path_that_leads_out_of_the_store_is_refused_here(version: ModelVersion, silent_loaderd: FakeLoaderd) -> None:
    ModelVersion.objects.update(path="../elsewhere")
    operation = load(version)
    dispatch(str(operation.pk))
    assert stored(operation).error["code"] == "artifact_refused"
    assert silent_loaderd.received == []


def test_deliveries_are_counted_and_end(version: ModelVersion, silent_loaderd: FakeLoaderd) -> None:
    operation = load(version)
    Operation.objects.update(attempts=MAX_ATTEMPTS)
    dispatch(str(operation.pk))
    assert stored(operation).status == "failed"
    assert f"begun {MAX_ATTEMPTS} times" in stored(operation).error["message"]
    assert silent_loaderd.received == []


def test_a_command_that_overtook_an_earlier_one_of_its_model_lets_it_go_first(
    version: ModelVersion, silent_loaderd: FakeLoaderd
) -> None:
    first = load(version)
    second = request_unload(version, user=None, source="api")
    dispatch(str(second.pk))
    assert [command["operation_id"] for command in silent_loaderd.received] == [str(first.pk), str(second.pk)]
    dispatch(str(first.pk))
    assert silent_loaderd.executed == [str(first.pk), str(second.pk)]


def test_an_unload_that_cannot_be_delivered_keeps_the_model_wished(
    make_version: MakeVersion, loaderd_is_heard: LoaderStatus
) -> None:
    version = make_version(status="loaded", desired_state="loaded")
    operation = request_unload(version, user=None, source="api")
    dispatch(str(operation.pk))
    assert (stored(operation).status, stored(operation).version.desired_state) == ("failed", "loaded")


def test_an_unload_whose_loaderd_stopped_first_has_what_it_asked_for(
    make_version: MakeVersion, loaderd_is_heard: LoaderStatus
) -> None:
    version = make_version(status="loaded", desired_state="loaded")
    operation = request_unload(version, user=None, source="api")
    ModelVersion.objects.filter(pk=version.pk).update(status="unloaded")
    dispatch(str(operation.pk))
    ended = stored(operation)
    assert (ended.status, ended.result["status"], ended.version.desired_state) == (
        "succeeded",
        "not_loaded",
        "unloaded",
    )


def test_a_command_that_was_taken_perhaps_is_delivered_again(
    version: ModelVersion, silent_loaderd: FakeLoaderd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelhub.lifecycle.tasks.LoaderClient", partial(LoaderClient, timeout_seconds=0.1))
    silent_loaderd.hold.clear()
    operation = load(version)
    with pytest.raises(LoaderUnreachable):
        dispatch(str(operation.pk))
    assert (stored(operation).status, stored(operation).version.desired_state) == ("running", "loaded")
    silent_loaderd.hold.set()
    dispatch(str(operation.pk))
    assert silent_loaderd.executed == [str(operation.pk)]
    assert (stored(operation).status, stored(operation).attempts) == ("running", 2)


def test_a_loaderd_that_never_answers_fails_the_operation_in_the_end(
    version: ModelVersion, silent_loaderd: FakeLoaderd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelhub.lifecycle.tasks.LoaderClient", partial(LoaderClient, timeout_seconds=0.05))
    silent_loaderd.hold.clear()
    operation = load(version)
    for _ in range(MAX_ATTEMPTS):
        with pytest.raises(LoaderUnreachable):
            dispatch(str(operation.pk))
    dispatch(str(operation.pk))
    assert stored(operation).status == "failed"
    assert "loaderd did not answer" in stored(operation).error["message"]
