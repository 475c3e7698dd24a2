"""What loaderd reports is in the registry: moves, measurements, counters, ends; also after Postgres was away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import OperationalError, connection, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from loaderd.errors import Cancelled, LoadFailed, ModelProcessDied, PermissionDenied, StateForbids, UnknownModel
from loaderd.reporter import Heartbeat, ModelRuntime, OperationEnded, OperationProgress, StateReport, Usage
from loaderd.states import LoadPhase, ModelState
from modelhub.accounts.models import ApiToken
from modelhub.lifecycle.actions import request_load
from modelhub.lifecycle.models import LoaderStatus, Operation, OperationStatus, StateChange
from modelhub.lifecycle.notifications import wait_for
from modelhub.lifecycle.recording import record_heartbeat
from modelhub.lifecycle.reporting import MAX_COMMANDS, DatabaseReporter
from modelhub.registry.models import ModelVersion
from tests.deadline import wait_until
from tests.lifecycle.conftest import MakeVersion, terminate_backends
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
def tell(version: ModelVersion) -> Iterator[Callable[..., None]]:
    """Reports through a reporter of its own and returns when all is written."""

    def tell(*reports: Any) -> None:
        reporter = DatabaseReporter()
        reporter._outbox.start()
        for report in reports:
            reporter.report(report)
        assert reporter.close(20)

    return tell


def test_a_load_and_unload_leave_every_field_and_every_move(tell: Callable[..., None]) -> None:
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


def test_a_move_names_who_asked(version: ModelVersion, admin: User, tell: Callable[..., None]) -> None:
    operation = Operation.objects.create(kind="load", version=version, requested_by_name="ada", source="api")
    tell(moved(ModelState.LOADING, operation_id=str(operation.pk)))
    change = StateChange.objects.get()
    assert (change.actor, change.operation) == ("ada", operation)


def test_an_error_is_counted_and_kept(tell: Callable[..., None]) -> None:
    error = LoadFailed("topic-v1 could not be loaded: \0 in its log.", log_tail="\0\ud800", ratio=float("nan"))
    tell(moved(ModelState.LOADING), moved(ModelState.ERROR, reason=error.message, error=error.to_message()))
    version = row()
    assert (version.status, version.error_count, version.health_status) == ("error", 1, "unhealthy")
    assert version.last_error == "topic-v1 could not be loaded: \N{REPLACEMENT CHARACTER} in its log."


def test_a_move_that_the_registry_did_not_expect_is_corrected_and_says_so(
    tell: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    tell(moved(ModelState.LOADED, load_seconds=0.1))
    assert row().status == "loaded"
    assert changes() == [("unloaded", "loaded")]
    assert StateChange.objects.get().reason == "now loaded (corrected: the registry said unloaded)"
    assert "topic-v1 was unloaded in the registry and is loaded in loaderd" in caplog.text


def test_reports_of_a_model_that_was_deleted_do_not_hold_up_the_rest(
    make_version: MakeVersion, tell: Callable[..., None]
) -> None:
    make_version("other")
    ModelVersion.objects.filter(model_id="topic-v1").delete()
    tell(moved(ModelState.LOADING), StateReport("other", ModelState.LOADING, "asked", NOW))
    assert row("other").status == "loading"


def test_a_report_that_cannot_be_written_is_dropped_alone(
    make_version: MakeVersion, tell: Callable[..., None], caplog: pytest.LogCaptureFixture
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
    version: ModelVersion, tell: Callable[..., None], ended: dict[str, Any], status: str
) -> None:
    operation = Operation.objects.create(kind="load", version=version, status="running")
    tell(OperationEnded(str(operation.pk), NOW, **ended))
    operation.refresh_from_db()
    assert operation.status == status
    assert (operation.result, operation.error) == (ended.get("result"), ended.get("error"))
    assert operation.finished_at is not None


def test_an_unload_puts_aside_an_error_that_is_older_than_the_daemon(
    version: ModelVersion, tell: Callable[..., None]
) -> None:
    ModelVersion.objects.filter(pk=version.pk).update(status=ModelState.ERROR.value, last_error="it died")
    operation = Operation.objects.create(kind="unload", version=version, requested_by_name="ada")
    tell(OperationEnded(str(operation.pk), NOW, result={"model_id": version.model_id, "status": "not_loaded"}))
    assert (row().status, row().last_error) == ("unloaded", "it died")
    change = StateChange.objects.get()
    assert (change.from_state, change.to_state, change.actor) == ("error", "unloaded", "ada")


def test_an_end_is_final(version: ModelVersion, tell: Callable[..., None], caplog: pytest.LogCaptureFixture) -> None:
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
    assert (status.pid, status.boot_id, status.facts) == (77, "second", FACTS)


def test_a_heartbeat_from_before_a_move_does_not_bring_the_old_process_back(
    make_version: MakeVersion, tell: Callable[..., None]
) -> None:
    ModelVersion.objects.update(status="loaded", status_changed_at=timezone.now() + timedelta(days=9000), pid=2)
    tell(Heartbeat(NOW, FACTS, {"topic-v1": ModelRuntime(1, NOW)}))
    assert row().pid == 2


def test_usage_is_added_up(tell: Callable[..., None]) -> None:
    tell(used(3), used(2, errors=1, last_at=NOW + 5, last_error="bad \0 luck"))
    tell(used(1, last_at=NOW - 5))
    version = row()
    assert (version.usage_count, version.item_count, version.latency_seconds_total) == (6, 12, 1.5)
    assert (version.prediction_error_count, version.error_count) == (1, 1)
    assert version.last_error == "bad \N{REPLACEMENT CHARACTER} luck"
    assert version.last_used_at.timestamp() == NOW + 5


# Postgres away


def allow_connections(is_allowed: bool) -> None:
    # A database can only be closed from another one.
    own = connection.get_connection_params()
    with psycopg.connect(**{**own, "dbname": "postgres"}, autocommit=True) as elsewhere:
        elsewhere.execute(f'ALTER DATABASE "{own["dbname"]}" ALLOW_CONNECTIONS {str(is_allowed).lower()}')


@pytest.fixture
def outage(transactional_db: None) -> Iterator[Callable[[], None]]:
    """Call it: connections end and new ones are refused, but for the test's own; allow_connections(True) ends it."""

    def begin() -> None:
        allow_connections(False)
        terminate_backends()

    yield begin
    allow_connections(True)


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


# Start and stop


def test_a_starting_loaderd_finds_nothing_loaded_and_gets_its_wishes(make_version: MakeVersion) -> None:
    make_version("was-loaded", status="loaded", pid=3, desired_state="loaded")
    make_version("was-loading", status="loading")
    make_version("was-error", status="error", status_reason="because")
    make_version("wished", desired_state="loaded")
    make_version("unapproved", desired_state="loaded", artifact_format="pickle")
    make_version("approved", desired_state="loaded", artifact_format="pickle", approved_digest="a" * 64)
    begun = Operation.objects.create(kind="load", version=row("was-loading"), status="running")
    unloading = Operation.objects.create(kind="unload", version=row("was-error"), status="running")
    queued = Operation.objects.create(kind="load", version=row("wished"))
    LoaderStatus.objects.create(pk=1, stopped_at=timezone.now(), boot_id="first")

    reporter = DatabaseReporter()
    specs = reporter.start(FACTS).result(10)

    assert sorted(spec.model_id for spec in specs) == ["approved", "was-loaded", "wished"]
    assert {version.model_id: version.status for version in ModelVersion.objects.all()} == {
        "was-loaded": "unloaded",
        "was-loading": "unloaded",
        "was-error": "error",
        "wished": "unloaded",
        "unapproved": "error",
        "approved": "unloaded",
    }
    assert row("was-loaded").status_reason == "loaderd started; nothing is loaded"
    assert "manage.py approve unapproved" in row("unapproved").status_reason
    begun.refresh_from_db()
    queued.refresh_from_db()
    assert (begun.status, begun.error["code"], queued.status) == ("failed", "loaderd_unreachable", "queued")
    unloading.refresh_from_db()
    assert (unloading.status, unloading.result["status"]) == ("succeeded", "unloaded"), "it ended with its daemon"
    status = LoaderStatus.objects.get()
    assert (status.boot_id, status.stopped_at) == ("second", None)
    assert reporter.close(10)
    assert LoaderStatus.objects.get().stopped_at is not None


def test_a_refused_wish_counts_one_error_whatever_the_number_of_starts(make_version: MakeVersion) -> None:
    make_version(desired_state="loaded", artifact_format="pickle")
    for _ in range(3):
        reporter = DatabaseReporter()
        assert reporter.start(FACTS).result(10) == []
        assert reporter.close(10)
    assert (row().status, row().error_count) == ("error", 1)
    assert changes() == [("unloaded", "error")]


def test_starting_waits_for_postgres(version: ModelVersion, outage: Callable[[], None]) -> None:
    ModelVersion.objects.update(desired_state="loaded")
    reporter = DatabaseReporter()
    outage()
    specs = reporter.start(FACTS)
    with pytest.raises(TimeoutError):
        specs.result(1.0)
    allow_connections(True)
    assert [spec.model_id for spec in specs.result(20)] == ["topic-v1"]
    assert reporter.close(10)


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
    make_version("topic-v1", lineage="topic", version="1.0.0", status="loaded", status_reason="asked")
    make_version("topic-v2", lineage="topic", version="2.0.0")
    assert reporter.index().result(10) == [
        {"model_id": "topic-v1", "name": "topic", "version": "1.0.0", "state": "loaded", "reason": "asked"},
        {"model_id": "topic-v2", "name": "topic", "version": "2.0.0", "state": "unloaded", "reason": ""},
    ]


def test_a_load_after_a_load_starts_no_second_one(loaderd: FakeLoaderd, queue: None, version: ModelVersion) -> None:
    first = request_load(version, user=None, source="api")
    assert wait_for(first.pk, 20).status == OperationStatus.SUCCEEDED
    again = request_load(version, user=None, source="api")
    assert again.is_ended
    assert loaderd.executed == [str(first.pk)]
    assert row().load_count == 1
