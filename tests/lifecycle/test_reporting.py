"""What loaderd reports is in the registry: moves, measurements, counters, ends; also after Postgres was away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import OperationalError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from loaderd.errors import (
    Cancelled,
    InsufficientMemory,
    LoaderdError,
    LoadFailed,
    ModelProcessDied,
    PermissionDenied,
    ShuttingDown,
    StateForbids,
    UnknownModel,
)
from loaderd.reporter import (
    HealthReport,
    Heartbeat,
    ModelRuntime,
    OperationEnded,
    OperationProgress,
    StateReport,
    Usage,
)
from loaderd.states import LoadPhase, ModelState
from modelhub.accounts.models import ApiToken
from modelhub.lifecycle.actions import request_load
from modelhub.lifecycle.models import LoaderStatus, Operation, OperationStatus, StateChange
from modelhub.lifecycle.notifications import wait_for
from modelhub.lifecycle.observations import record_health, record_heartbeat
from modelhub.lifecycle.reporting import MAX_COMMANDS, DatabaseReporter
from modelhub.lifecycle.settings import own_environment
from modelhub.registry.models import ModelVersion
from tests.deadline import wait_until
from tests.lifecycle.conftest import MakeVersion, Tell, allow_connections, terminate_backends
from tests.lifecycle.fake_loaderd import FakeLoaderd

pytestmark = pytest.mark.django_db(transaction=True)

FACTS = {"pid": 77, "boot_id": "second", "started_at": 1_700_000_000.5, "gpus": []}
NOW = 1_800_000_000.0


def moved(state: ModelState, **fields: Any) -> StateReport:
    return StateReport("topic-v1", **{"reason": f"now {state}", "at": NOW, **fields, "state": state})


def row(model_id: str = "topic-v1") -> ModelVersion:
    return ModelVersion.objects.get(model_id=model_id)


def changes() -> list[tuple[str, str]]:
    return list(StateChange.objects.order_by("pk").values_list("from_state", "to_state"))


def used(requests: int, **fields: Any) -> Usage:
    return Usage(
        "topic-v1",
        **{"items": 2 * requests, "errors": 0, "latency_seconds": 0.5, "last_at": NOW, **fields},
        requests=requests,
    )


@pytest.fixture
def tell(version: ModelVersion, tell: Tell) -> Tell:
    """Of one model, topic-v1."""
    return tell


def test_what_a_loaded_model_says_of_its_processes_is_its_reason_and_no_load(tell: Tell) -> None:
    signature = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}]}
    runtime = ModelRuntime(4711, NOW - 1, LoadPhase.SERVING, private_bytes=1000)
    loaded = moved(ModelState.LOADED, digest="d" * 64, runtime=runtime, load_seconds=0.25, signature=signature)
    short = "1 of 2 processes serve it; another one waits for memory"
    told = moved(ModelState.LOADED, reason=short, runtime=runtime, at=NOW + 5, is_no_move=True)
    tell(moved(ModelState.LOADING), loaded, told)
    version = row()
    assert (version.status, version.status_reason, version.phase) == ("loaded", short, "serving")
    assert (version.load_count, version.last_load_seconds, version.signature) == (1, 0.25, signature)
    assert version.observed_at == version.last_loaded_at + timedelta(seconds=5)
    assert changes() == [("unloaded", "loading"), ("loading", "loaded")]


def test_a_load_and_unload_leave_every_field_and_every_move(tell: Tell) -> None:
    runtime = ModelRuntime(4711, NOW - 1, LoadPhase.SERVING, private_bytes=1000, pss_bytes=1200, gpu_bytes=0)
    signature = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}]}
    tell(
        moved(ModelState.LOADING, runtime=ModelRuntime(phase=LoadPhase.QUEUED)),
        moved(ModelState.LOADED, digest="d" * 64, runtime=runtime, load_seconds=0.25, signature=signature),
    )
    version = row()
    assert (version.status, version.status_reason, version.phase) == ("loaded", "now loaded", "serving")
    assert (version.pid, version.private_bytes, version.pss_bytes, version.gpu_bytes) == (4711, 1000, 1200, 0)
    assert (version.load_count, version.last_load_seconds, version.average_load_seconds) == (1, 0.25, 0.25)
    assert version.observed_at == version.last_loaded_at == version.status_changed_at
    assert version.started_at == version.observed_at - timedelta(seconds=1)
    assert (version.loaded_digest, version.signature, version.peak_private_bytes) == ("d" * 64, signature, 1000)
    assert version.health_status == "healthy"

    tell(moved(ModelState.UNLOADING), moved(ModelState.UNLOADED, freed_bytes=3 * 2**20))
    version = row()
    assert (version.status, version.pid, version.private_bytes, version.loaded_digest) == ("unloaded", None, None, "")
    assert version.load_count == 1
    assert changes() == [
        ("unloaded", "loading"),
        ("loading", "loaded"),
        ("loaded", "unloading"),
        ("unloading", "unloaded"),
    ]
    assert StateChange.objects.order_by("pk").last().reason == "now unloaded; 3.0 MiB came back"
    assert set(StateChange.objects.values_list("actor", flat=True)) == {"loaderd"}


def test_a_move_names_who_asked(version: ModelVersion, admin: User, tell: Tell) -> None:
    operation = Operation.objects.create(kind="load", version=version, requested_by_name="ada", source="api")
    tell(moved(ModelState.LOADING, operation_id=str(operation.pk)))
    change = StateChange.objects.get()
    assert (change.actor, change.operation) == ("ada", operation)


@pytest.mark.parametrize(("source", "actor"), [("command", "operator"), ("demand", "system"), ("python", "system")])
def test_a_move_that_no_user_asked_for_names_the_operator_or_the_system(
    version: ModelVersion, tell: Tell, source: str, actor: str
) -> None:
    operation = Operation.objects.create(kind="load", version=version, source=source)
    tell(moved(ModelState.LOADING, operation_id=str(operation.pk)))
    assert StateChange.objects.get().actor == actor


def test_an_error_is_counted_and_kept(tell: Tell) -> None:
    error = LoadFailed("topic-v1 could not be loaded: \0 in its log.", log_tail="\0\ud800", ratio=float("nan"))
    tell(moved(ModelState.LOADING), moved(ModelState.ERROR, reason=error.message, error=error.to_message()))
    version = row()
    assert (version.status, version.error_count, version.health_status) == ("error", 1, "unhealthy")
    assert version.last_error == "topic-v1 could not be loaded: \N{REPLACEMENT CHARACTER} in its log."


def test_a_move_that_the_registry_did_not_expect_is_corrected_and_says_so(
    tell: Tell, caplog: pytest.LogCaptureFixture
) -> None:
    tell(moved(ModelState.LOADED, load_seconds=0.1))
    assert row().status == "loaded"
    assert changes() == [("unloaded", "loaded")]
    assert StateChange.objects.get().reason == "now loaded (corrected: the registry said unloaded)"
    assert "topic-v1 was unloaded in the registry and is loaded in loaderd" in caplog.text


def test_reports_of_a_model_that_was_deleted_do_not_hold_up_the_rest(make_version: MakeVersion, tell: Tell) -> None:
    make_version("other")
    ModelVersion.objects.filter(model_id="topic-v1").delete()
    tell(moved(ModelState.LOADING), StateReport("other", ModelState.LOADING, "asked", NOW))
    assert row("other").status == "loading"


def test_a_report_that_cannot_be_written_is_dropped_alone(
    make_version: MakeVersion, tell: Tell, caplog: pytest.LogCaptureFixture
) -> None:
    make_version("other")
    tell(
        moved(ModelState.LOADING),
        StateReport("other", ModelState.LOADING, "asked", NOW, runtime=ModelRuntime(pid=2**40)),
        moved(ModelState.LOADED, load_seconds=0.1),
        used(3),
    )
    assert (row().status, row().usage_count, row("other").status) == ("loaded", 3, "unloaded")
    assert "cannot be written and is dropped" in caplog.text


@pytest.mark.parametrize(
    ("ended", "status"),
    [
        ({"result": {"status": "loaded", "load_seconds": 0.2}}, "succeeded"),
        ({"error": ModelProcessDied("It died.").to_message()}, "failed"),
        ({"error": Cancelled("Enough.").to_message()}, "cancelled"),
    ],
)
def test_an_operation_ends_as_loaderd_says(
    version: ModelVersion, tell: Tell, ended: dict[str, Any], status: str
) -> None:
    operation = Operation.objects.create(kind="load", version=version, status="running")
    tell(OperationEnded(str(operation.pk), NOW, **ended))
    operation.refresh_from_db()
    assert operation.status == status
    assert (operation.result, operation.error) == (ended.get("result"), ended.get("error"))
    assert operation.finished_at is not None


@pytest.mark.parametrize(
    ("ended", "before", "desired"),
    [
        ({"error": Cancelled("Enough.").to_message()}, "unloaded", "unloaded"),
        ({"error": Cancelled("Enough.").to_message()}, "loaded", "loaded"),  # its restart was on its way, and is again
        ({"error": ShuttingDown("Later.").to_message()}, "unloaded", "loaded"),
        ({"result": {"status": "loaded"}}, "unloaded", "loaded"),
    ],
    ids=["cancelled", "cancelled, wished before", "shut down", "loaded before the cancel"],
)
def test_a_cancelled_load_leaves_the_wish_that_it_found(
    version: ModelVersion, tell: Tell, ended: dict[str, Any], before: str, desired: str
) -> None:
    ModelVersion.objects.update(desired_state="loaded")
    parameters = {"desired_before": before}
    operation = Operation.objects.create(kind="load", version=version, status="running", parameters=parameters)
    tell(OperationEnded(str(operation.pk), NOW, **ended))
    assert row().desired_state == desired


def test_a_cancelled_load_leaves_the_wish_of_an_activation_that_waits(version: ModelVersion, tell: Tell) -> None:
    ModelVersion.objects.update(desired_state="loaded")
    operation = Operation.objects.create(kind="load", version=version, status="running")
    Operation.objects.create(kind="activate", version=version)
    tell(OperationEnded(str(operation.pk), NOW, error=Cancelled("Enough.").to_message()))
    assert row().desired_state == "loaded"


def test_an_unload_puts_aside_an_error_that_is_older_than_the_daemon(version: ModelVersion, tell: Tell) -> None:
    ModelVersion.objects.filter(pk=version.pk).update(status=ModelState.ERROR.value, last_error="it died")
    operation = Operation.objects.create(kind="unload", version=version, requested_by_name="ada")
    tell(OperationEnded(str(operation.pk), NOW, result={"model_id": version.model_id, "status": "not_loaded"}))
    assert (row().status, row().last_error) == ("unloaded", "it died")
    change = StateChange.objects.get()
    assert (change.from_state, change.to_state, change.actor) == ("error", "unloaded", "ada")


def test_an_end_is_final(version: ModelVersion, tell: Tell, caplog: pytest.LogCaptureFixture) -> None:
    operation = Operation.objects.create(kind="load", version=version, status="cancelled")
    tell(OperationEnded(str(operation.pk), NOW, result={}))
    operation.refresh_from_db()
    assert (operation.status, operation.result) == ("cancelled", None)
    assert "after it had ended" in caplog.text


def test_progress_is_told_while_an_operation_runs(version: ModelVersion, reporter: DatabaseReporter) -> None:
    operation = Operation.objects.create(kind="load", version=version)
    ModelVersion.objects.update(status="loading")
    reporter.report(OperationProgress(str(operation.pk), "topic-v1", LoadPhase.LOADING, 0.5, NOW))
    wait_until(lambda: Operation.objects.get().phase == "loading")
    operation.refresh_from_db()
    assert (operation.status, operation.progress, row().phase) == ("running", 0.5, "loading")
    reporter.report(OperationEnded(str(operation.pk), NOW, result={}))
    assert wait_for(operation.pk, 10).status == "succeeded"


def test_it_writes_on_after_an_end_that_overtook_its_progress(
    version: ModelVersion, reporter: DatabaseReporter
) -> None:
    operation = Operation.objects.create(kind="load", version=version)
    reporter.report(OperationProgress(str(operation.pk), "topic-v1", LoadPhase.STARTING, 0.0, NOW))
    reporter.report(OperationEnded(str(operation.pk), NOW, result={}))
    assert wait_for(operation.pk, 10).is_ended
    wait_until(lambda: reporter._outbox._telemetry_since is None)
    reporter.report(used(1))
    wait_until(lambda: row().usage_count == 1)


def test_a_heartbeat_measures_all_models_in_two_queries(
    make_version: MakeVersion, django_assert_num_queries: Any
) -> None:
    long_ago = timezone.now() - timedelta(days=9000)
    for number in range(30):
        make_version(f"m{number}", status="loaded", status_changed_at=long_ago, peak_private_bytes=500)
    make_version("gone", status="unloaded", status_changed_at=long_ago)
    runtime = ModelRuntime(5, NOW, LoadPhase.SERVING, private_bytes=100, pss_bytes=200, gpu_bytes=None)
    names = [*(f"m{number}" for number in range(30)), "gone", "never-registered"]
    with transaction.atomic(), django_assert_num_queries(2):
        record_heartbeat(Heartbeat(NOW, FACTS, dict.fromkeys(names, runtime)))
    version = row("m7")
    assert (version.pid, version.private_bytes, version.pss_bytes, version.peak_private_bytes) == (5, 100, 200, 500)
    assert version.phase == "serving"
    assert row("gone").pid is None
    status = LoaderStatus.objects.get()
    assert (status.pid, status.boot_id, status.facts) == (77, "second", {**FACTS, "environment": own_environment()})


LOADED = ModelRuntime(4711, NOW - 1, private_bytes=1000, gpu_bytes=50)


def measured() -> tuple[Any, ...]:
    version = row()
    return (
        version.measured_digest[:1],
        version.measured_device,
        version.measured_peak_bytes,
        version.measured_resident_bytes,
        version.measured_gpu_bytes,
    )


def test_what_a_load_needed_is_remembered_for_these_bytes_on_this_device(tell: Tell) -> None:
    tell(Heartbeat(NOW - 9, {**FACTS, "gpus": [{"name": "H100"}]}, {}))
    tell(moved(ModelState.LOADED, digest="a" * 64, runtime=LOADED, peak_bytes=3000))
    assert measured() == ("a", "H100", 3000, 1000, 50)

    tell(Heartbeat(NOW + 1, FACTS, {"topic-v1": ModelRuntime(4711, NOW - 1, private_bytes=1500, gpu_bytes=70)}))
    tell(Heartbeat(NOW + 2, FACTS, {"topic-v1": ModelRuntime(4711, NOW - 1, private_bytes=1200, gpu_bytes=None)}))
    assert measured() == ("a", "H100", 3000, 1500, 70), "the highest while it serves"

    tell(moved(ModelState.UNLOADED, at=NOW + 3))
    tell(Heartbeat(NOW + 4, {**FACTS, "gpus": [{"name": "H100"}]}, {}))
    tell(moved(ModelState.LOADED, digest="a" * 64, runtime=LOADED, peak_bytes=2800, at=NOW + 5))
    assert measured() == ("a", "H100", 2800, 1500, 70), "the same bytes hold what they held"

    tell(moved(ModelState.LOADED, digest="b" * 64, runtime=LOADED, peak_bytes=900, at=NOW + 6))
    assert measured() == ("b", "H100", 900, 1000, 50), "others begin anew"
    tell(Heartbeat(NOW + 7, FACTS, {}))
    tell(moved(ModelState.LOADED, digest="b" * 64, runtime=ModelRuntime(1), peak_bytes=800, at=NOW + 8))
    assert measured() == ("b", "cpu", 800, None, None), "so does another device"
    two = ModelRuntime(1, private_bytes=700)
    tell(moved(ModelState.LOADED, digest="b" * 64, runtime=two, peak_bytes=400, measured_as="2 processes", at=NOW + 9))
    assert measured() == ("b", "cpu", 400, 700, None), "so do several processes"
    assert row().measured_as == "2 processes"


def test_bytes_that_nobody_measured_are_not_taken_for_others(tell: Tell) -> None:
    tell(moved(ModelState.LOADED, digest="a" * 64, runtime=LOADED, peak_bytes=3000))
    tell(moved(ModelState.LOADED, digest="b" * 64, runtime=LOADED))
    tell(Heartbeat(NOW + 1, FACTS, {"topic-v1": ModelRuntime(4711, NOW - 1, private_bytes=9000)}))
    assert measured() == ("a", "cpu", 3000, 1000, 50)


def test_a_canary_that_was_recorded_is_kept_for_its_bytes(tell: Tell) -> None:
    canary = {"source": "recorded", "inputs": ["\0"], "outputs": {"label": ["good"]}}
    tell(moved(ModelState.LOADED, digest="a" * 64, canary=canary))
    assert (row().canary, row().canary_digest) == (
        {**canary, "inputs": ["\N{REPLACEMENT CHARACTER}"]},
        "a" * 64,
    )
    tell(moved(ModelState.LOADED, digest="a" * 64))
    assert row().canary["source"] == "recorded", "a load that had one says nothing of it"


def test_a_move_tells_its_cause_to_programs(tell: Tell) -> None:
    tell(moved(ModelState.LOADED), moved(ModelState.UNLOADED, cause="evicted", ends_wish=True))
    assert row().status_cause == "evicted"
    tell(moved(ModelState.LOADING), moved(ModelState.LOADED))
    assert row().status_cause == ""


def test_what_ends_the_wish_keeps_it_from_coming_back(make_version: MakeVersion, tell: Tell) -> None:
    make_version("topic-v2")
    ModelVersion.objects.update(desired_state="loaded", status="loaded")
    Operation.objects.create(kind="load", version=row("topic-v2"), status="queued")
    for model_id in ("topic-v1", "topic-v2"):
        tell(StateReport(model_id, ModelState.UNLOADED, "idle for 60 s", NOW, ends_wish=True, cause="idle"))
    assert row("topic-v1").desired_state == "unloaded"
    assert row("topic-v2").desired_state == "loaded", "its load is under way"


def test_a_load_that_ended_long_ago_does_not_keep_the_wish_of_an_evicted_model(
    version: ModelVersion, reporter: DatabaseReporter, outage: Callable[[], None]
) -> None:
    ModelVersion.objects.update(desired_state="loaded")
    operation = Operation.objects.create(kind="load", version=version, status="running")
    outage()
    for report in (
        moved(ModelState.LOADED, operation_id=str(operation.pk)),
        OperationEnded(str(operation.pk), NOW, result={"status": "loaded"}),
        moved(ModelState.UNLOADED, ends_wish=True, cause="evicted", at=NOW + 60),
    ):
        reporter.report(report)
    wait_until(lambda: reporter._outbox._is_away)
    allow_connections(True)
    assert wait_for(operation.pk, 20).status == "succeeded"
    assert (row().status, row().desired_state) == ("unloaded", "unloaded")


def test_an_evicted_model_that_was_asked_for_again_meanwhile_stays_wished(version: ModelVersion, tell: Tell) -> None:
    ModelVersion.objects.update(desired_state="loaded")
    operation = Operation.objects.create(kind="load", version=version, status="running")
    tell(
        moved(ModelState.UNLOADED, ends_wish=True, cause="evicted"),
        moved(ModelState.LOADING, operation_id=str(operation.pk)),
        moved(ModelState.LOADED, operation_id=str(operation.pk)),
        OperationEnded(str(operation.pk), NOW, result={"status": "loaded"}),
    )
    assert row().desired_state == "loaded"


@pytest.mark.parametrize(("error", "desired"), [(InsufficientMemory, "unloaded"), (LoadFailed, "loaded")])
def test_a_load_that_did_not_fit_leaves_nothing_wished(
    version: ModelVersion, tell: Tell, error: type[LoaderdError], desired: str
) -> None:
    ModelVersion.objects.update(desired_state="loaded")
    operation = Operation.objects.create(
        kind="load", version=version, status="running", parameters={"desired_before": "unloaded"}
    )
    tell(OperationEnded(str(operation.pk), NOW, error=error("No.").to_message()))
    assert row().desired_state == desired


# Health


def judged(status: str, **fields: Any) -> HealthReport:
    return HealthReport("topic-v1", **{"reason": f"it is {status}", "at": NOW + 1, **fields, "status": status})


def test_health_is_written_with_the_times_of_heartbeat_and_canary(tell: Tell) -> None:
    canary = {"canary_at": NOW + 0.5, "canary_ok": True, "canary_seconds": 0.01}
    tell(moved(ModelState.LOADED), judged("healthy", heartbeat_at=NOW + 0.9, **canary))
    tell(judged("degraded", reason="slow: \0", at=NOW + 2))
    version = row()
    assert (version.health_status, version.health_reason) == ("degraded", "slow: \N{REPLACEMENT CHARACTER}")
    assert version.last_health_check_at.timestamp() == NOW + 2
    assert version.heartbeat_at.timestamp() == NOW + 0.9
    assert (version.canary_at.timestamp(), version.canary_ok, version.canary_seconds) == (NOW + 0.5, True, 0.01)


def test_the_newest_of_many_checks_is_written_in_one_query(
    make_version: MakeVersion, django_assert_num_queries: Any
) -> None:
    for number in range(20):
        make_version(f"m{number}", status="loaded")
    with transaction.atomic(), django_assert_num_queries(1):
        record_health([HealthReport(f"m{number}", "unhealthy", "wrong", NOW) for number in range(20)])
    assert {version.health_status for version in ModelVersion.objects.filter(status="loaded")} == {"unhealthy"}


def test_a_check_does_not_outlive_the_process_that_it_was_of(tell: Tell) -> None:
    tell(moved(ModelState.LOADED), judged("degraded"), moved(ModelState.UNLOADED))
    tell(judged("degraded"))
    assert row().health_status == "unknown"
    crash = ModelProcessDied("It died.").to_message()
    tell(moved(ModelState.LOADED), judged("healthy"), moved(ModelState.ERROR, error=crash), judged("healthy"))
    assert (row().health_status, row().health_reason) == ("unhealthy", "now error")


def test_a_heartbeat_tells_when_a_process_answered(tell: Tell) -> None:
    tell(moved(ModelState.LOADED))
    assert row().heartbeat_at.timestamp() == NOW
    tell(Heartbeat(NOW + 9, FACTS, {"topic-v1": ModelRuntime(1, NOW, answered_at=NOW + 4)}))
    assert row().heartbeat_at.timestamp() == NOW + 4
    tell(Heartbeat(NOW + 10, FACTS, {"topic-v1": ModelRuntime(1, NOW)}))
    assert row().heartbeat_at.timestamp() == NOW + 10


def test_a_heartbeat_from_before_a_move_does_not_bring_the_old_process_back(
    make_version: MakeVersion, tell: Tell
) -> None:
    ModelVersion.objects.update(status="loaded", status_changed_at=timezone.now() + timedelta(days=9000), pid=2)
    tell(Heartbeat(NOW, FACTS, {"topic-v1": ModelRuntime(1, NOW)}))
    assert row().pid == 2


def test_what_ended_a_model_is_not_hidden_by_the_error_of_an_earlier_request(tell: Tell) -> None:
    died = LoadFailed("topic-v1 was ended by SIGSEGV.")
    tell(
        moved(ModelState.LOADING),
        used(2, errors=1, last_error="the request before"),
        moved(ModelState.ERROR, reason=died.message, error=died.to_message()),
    )
    version = row()
    assert (version.last_error, version.prediction_error_count) == ("topic-v1 was ended by SIGSEGV.", 1)


def test_what_the_cache_answered_is_added_up_beside_the_usage(tell: Tell) -> None:
    nothing = {"items": 0, "latency_seconds": 0.0}
    tell(used(3), used(0, **nothing, last_at=NOW + 5, cache_hits=7, cache_misses=3))
    tell(used(0, **nothing, cache_hits=1))
    version = row()
    assert (version.usage_count, version.cache_hit_count, version.cache_miss_count) == (3, 8, 3)
    assert version.cache_hit_rate == 8 / 11
    assert version.last_used_at.timestamp() == NOW + 5, "an answer of the cache is a use"


def test_usage_is_added_up(tell: Tell) -> None:
    tell(used(3), used(2, errors=1, last_at=NOW + 5, last_error="bad \0 luck"))
    tell(used(1, last_at=NOW - 5))
    version = row()
    assert (version.usage_count, version.item_count, version.latency_seconds_total) == (6, 12, 1.5)
    assert (version.prediction_error_count, version.error_count) == (1, 1)
    assert version.last_error == "bad \N{REPLACEMENT CHARACTER} luck"
    assert version.last_used_at.timestamp() == NOW + 5


# Postgres away


def test_nothing_is_lost_or_counted_twice_while_postgres_is_away(
    version: ModelVersion, reporter: DatabaseReporter, outage: Callable[[], None]
) -> None:
    operation = Operation.objects.create(kind="load", version=version, status="running")
    reporter.report(used(1))
    wait_until(lambda: row().usage_count == 1)
    outage()
    reporter.report(moved(ModelState.LOADING))
    for number in range(100):
        reporter.report(used(1))
        reporter.report(Heartbeat(NOW + number, FACTS, {}))
    reporter.report(moved(ModelState.LOADED, load_seconds=0.1))
    reporter.report(OperationEnded(str(operation.pk), NOW, result={"status": "loaded"}))
    wait_until(lambda: reporter._outbox._is_away)
    reporter.report(used(1))
    assert row().status == "unloaded"
    allow_connections(True)
    assert wait_for(operation.pk, 20).status == "succeeded"
    wait_until(lambda: row().usage_count == 102)
    assert changes() == [("unloaded", "loading"), ("loading", "loaded")]
    assert row().load_count == 1
    assert LoaderStatus.objects.get().observed_at.timestamp() == NOW + 99


@pytest.mark.parametrize("is_committed", [True, False])
def test_a_commit_whose_answer_was_lost_is_neither_lost_nor_repeated(
    version: ModelVersion, reporter: DatabaseReporter, monkeypatch: pytest.MonkeyPatch, is_committed: bool
) -> None:
    commit = BaseDatabaseWrapper._commit
    was_lost = threading.Event()

    def lose_the_answer(self: BaseDatabaseWrapper) -> None:
        if threading.current_thread() is not reporter._outbox._thread or was_lost.is_set():
            commit(self)
            return
        was_lost.set()
        if is_committed:
            commit(self)
        else:
            self.connection.close()
        raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(BaseDatabaseWrapper, "_commit", lose_the_answer)
    reporter.report(moved(ModelState.LOADING))
    wait_until(lambda: row().status == "loading" and was_lost.is_set())
    reporter.report(used(1))
    wait_until(lambda: row().usage_count == 1)
    assert changes() == [("unloaded", "loading")]


def test_closing_while_postgres_is_away_ends_in_time_and_admits_the_loss(
    reporter: DatabaseReporter, version: ModelVersion, outage: Callable[[], None]
) -> None:
    lonely = DatabaseReporter()
    lonely._outbox.start()
    outage()
    lonely.report(used(1))
    began = time.monotonic()
    assert lonely.close(0.5) is False
    assert time.monotonic() - began < 5
    allow_connections(True)


# Questions of the inference door


def test_access_holds_the_valid_tokens_of_active_users(reporter: DatabaseReporter, admin: User) -> None:
    reader = User.objects.create_user("grace")
    group = Group.objects.create(name="predictors")
    group.permissions.add(Permission.objects.get(codename="predict_modelversion"))
    reader.groups.add(group)
    reader.user_permissions.add(Permission.objects.get(codename="unload_modelversion"))
    nobody = User.objects.create_user("eve")
    asleep = User.objects.create_user("hal", is_active=False)
    tokens = {
        user.username: ApiToken.objects.create(user, expiry=expiry)[0]
        for user, expiry in [(admin, None), (reader, timedelta(hours=1)), (nobody, None), (asleep, None)]
    }
    ApiToken.objects.create(admin, expiry=timedelta(seconds=-1))

    access = reporter.access().result(10)

    assert {entry.user: entry.permissions for entry in access.values()} == {
        "ada": {"predict", "load", "unload"},
        "grace": {"predict", "unload"},
        "eve": frozenset(),
    }
    assert access[tokens["ada"].digest].expires_at is None
    assert access[tokens["grace"].digest].expires_at == tokens["grace"].expiry.timestamp()


def test_a_change_of_access_calls_back(reporter: DatabaseReporter, admin: User) -> None:
    called = threading.Semaphore(0)
    reporter.on_access_changed(called.release)
    assert called.acquire(timeout=10)  # on connecting: what came before was missed
    ApiToken.objects.create(admin)
    assert called.acquire(timeout=10)
    admin.is_active = False
    admin.save()
    assert called.acquire(timeout=10)
    terminate_backends("query LIKE 'LISTEN%modelhub_access%'")
    assert called.acquire(timeout=10)


def test_a_command_of_the_door_runs_as_an_operation(
    reporter: DatabaseReporter, loaderd: FakeLoaderd, queue: None, version: ModelVersion, admin: User
) -> None:
    outcome = reporter.submit("load", "topic-v1", "ada").result(20)
    assert outcome["state"] == "loaded"
    assert outcome["result"]["status"] == "loaded"
    assert outcome["error"] is None
    operation = Operation.objects.get()
    assert (operation.source, operation.requested_by) == ("inference", admin)


def test_predictions_that_wait_for_one_model_are_one_load_by_the_system(
    reporter: DatabaseReporter, loaderd: FakeLoaderd, queue: None, version: ModelVersion
) -> None:
    ModelVersion.objects.update(autoload=True)
    loaderd.hold.clear()
    waiting = [reporter.submit("demand", "topic-v1", "grace") for _ in range(MAX_COMMANDS + 8)]
    loaderd.wait_for_commands(1)
    waiting[0].cancel()
    assert [entry["model_id"] for entry in reporter.index().result(5)] == ["topic-v1"]
    loaderd.hold.set()
    assert {demand.result(20)["state"] for demand in waiting[1:]} == {"loaded"}
    operation = Operation.objects.get()
    assert (operation.source, operation.requested_by, operation.reason) == ("demand", None, "asked for by grace")
    assert reporter.submit("demand", "topic-v1", "grace").result(20)["state"] == "loaded"


def test_what_is_not_loaded_on_demand_is_refused(reporter: DatabaseReporter, version: ModelVersion) -> None:
    with pytest.raises(StateForbids, match="set its `autoload`"):
        reporter.submit("demand", "topic-v1", "grace").result(10)
    with pytest.raises(UnknownModel, match="'ghost'"):
        reporter.submit("demand", "ghost", "grace").result(10)
    assert not Operation.objects.exists()


def test_commands_that_wait_do_not_delay_access_or_index(
    reporter: DatabaseReporter, version: ModelVersion, admin: User
) -> None:
    waiting = [reporter.submit("load", "topic-v1", "ada") for _ in range(MAX_COMMANDS + 1)]
    wait_until(lambda: sum(command.running() for command in waiting) == MAX_COMMANDS)
    assert reporter.access().result(5) == {}
    assert [entry["model_id"] for entry in reporter.index().result(5)] == ["topic-v1"]


def test_a_command_of_the_door_that_is_refused_raises(
    reporter: DatabaseReporter, version: ModelVersion, admin: User
) -> None:
    ModelVersion.objects.update(missing_since=timezone.now())
    with pytest.raises(StateForbids):
        reporter.submit("load", "topic-v1", "ada").result(10)
    with pytest.raises(UnknownModel, match="'ghost'"):
        reporter.submit("load", "ghost", "ada").result(10)
    with pytest.raises(PermissionDenied, match="'nobody'"):
        reporter.submit("load", "topic-v1", "nobody").result(10)


def test_the_index_lists_every_version(reporter: DatabaseReporter, make_version: MakeVersion) -> None:
    wished = {"status": "loaded", "status_reason": "asked", "desired_state": "loaded"}
    make_version("topic-v1", lineage="topic", version="1.0.0", **wished)
    make_version("topic-v2", lineage="topic", version="2.0.0")
    first = {"model_id": "topic-v1", "name": "topic", "version": "1.0.0", "state": "loaded", "reason": "asked"}
    second = {"model_id": "topic-v2", "name": "topic", "version": "2.0.0", "state": "unloaded", "reason": ""}
    assert reporter.index().result(10) == [{**first, "wished": True}, {**second, "wished": False}]


def test_a_load_after_a_load_starts_no_second_one(loaderd: FakeLoaderd, queue: None, version: ModelVersion) -> None:
    first = request_load(version, user=None, source="api")
    assert wait_for(first.pk, 20).status == OperationStatus.SUCCEEDED
    again = request_load(version, user=None, source="api")
    assert again.is_ended
    assert loaderd.executed == [str(first.pk)]
    assert row().load_count == 1
