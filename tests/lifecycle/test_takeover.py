"""A starting loaderd finds nothing loaded, ends what a dead daemon had begun, and gets what is wished, in order."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from loaderd.reporter import AlertReport, AliasMoved
from modelhub.lifecycle.models import LoaderStatus, Operation, StateChange
from modelhub.lifecycle.reporting import DatabaseReporter
from modelhub.lifecycle.takeover import take_over
from modelhub.registry.models import Alias, Model, ModelVersion
from modelhub.telemetry.models import Alert
from tests.lifecycle.conftest import MakeVersion, Tell, allow_connections

pytestmark = pytest.mark.django_db(transaction=True)

FACTS: dict[str, Any] = {"pid": 77, "boot_id": "second", "started_at": 1_700_000_000.5, "gpus": []}
NOW = 1_800_000_000.0


def row(model_id: str = "topic-v1") -> ModelVersion:
    return ModelVersion.objects.get(model_id=model_id)


def changes() -> list[tuple[str, str]]:
    return list(StateChange.objects.order_by("pk").values_list("from_state", "to_state"))


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


# What the last daemon had begun


def running(kind: str, version: ModelVersion | None, **parameters: Any) -> Operation:
    return Operation.objects.create(kind=kind, version=version, status="running", parameters=parameters)


@pytest.fixture
def two_versions(make_version: MakeVersion) -> tuple[ModelVersion, ModelVersion]:
    """The first one is live, the second one was being activated; both are wished."""
    old, new = (
        make_version(f"topic-v{number}", lineage="topic", version=str(number), desired_state="loaded")
        for number in (1, 2)
    )
    Alias.objects.create(lineage=old.lineage, name="live", version=old, set_by="ada")
    return old, new


@pytest.mark.parametrize("kind", ["activate", "rollback"])
@pytest.mark.parametrize("desired_before", ["unloaded", "loaded"])
def test_an_activation_that_did_not_get_to_its_move_has_failed_and_its_wish_is_put_back(
    two_versions: tuple[ModelVersion, ModelVersion], kind: str, desired_before: str
) -> None:
    old, new = two_versions
    operation = running(kind, new, desired_before=desired_before)
    wished = [spec.model_id for spec in take_over(FACTS)]
    assert wished == ["topic-v1"] + ["topic-v2"] * (desired_before == "loaded")
    operation.refresh_from_db()
    assert (operation.status, operation.error["code"]) == ("failed", "loaderd_unreachable")
    assert "before topic-v2 was live; what was live before stays so" in operation.error["message"]
    assert row("topic-v2").desired_state == desired_before
    assert Alias.objects.get().version == old


@pytest.mark.parametrize("kind", ["activate", "rollback"])
def test_an_activation_whose_alias_had_moved_has_succeeded(
    two_versions: tuple[ModelVersion, ModelVersion], tell: Tell, kind: str
) -> None:
    _, new = two_versions
    operation = running(kind, new, desired_before="unloaded")
    tell(
        AliasMoved("topic", "live", "topic-v2", "topic-v1", kind, "better", "ada", NOW, operation_id=str(operation.pk))
    )
    assert [spec.model_id for spec in take_over(FACTS)] == ["topic-v2"], "the old one was left"
    operation.refresh_from_db()
    assert (operation.status, operation.error) == ("succeeded", None)
    assert operation.result == {
        "model_id": "topic-v2",
        "status": "live",
        "previous": "topic-v1",
        "load_seconds": None,
        "freed_bytes": None,
        "gap_seconds": None,
    }


@pytest.mark.parametrize("desired_before", ["unloaded", "loaded"])
@pytest.mark.parametrize("kind", ["activate", "rollback"])
def test_an_activation_that_was_cancelled_is_cancelled_and_its_wish_is_put_back(
    two_versions: tuple[ModelVersion, ModelVersion], kind: str, desired_before: str
) -> None:
    old, new = two_versions
    operation = running(kind, new, desired_before=desired_before, cancel_requested=True)
    wished = [spec.model_id for spec in take_over(FACTS)]
    assert wished == ["topic-v1"] + ["topic-v2"] * (desired_before == "loaded")
    operation.refresh_from_db()
    assert (operation.status, operation.error["code"]) == ("cancelled", "cancelled")
    assert row("topic-v2").desired_state == desired_before
    assert Alias.objects.get().version == old


def test_a_load_that_was_cancelled_is_cancelled_and_not_begun_anew(make_version: MakeVersion) -> None:
    version = make_version(desired_state="loaded", status="loading")
    operation = running("load", version, desired_before="unloaded", cancel_requested=True)
    assert take_over(FACTS) == []
    operation.refresh_from_db()
    assert (operation.status, operation.error["code"]) == ("cancelled", "cancelled")
    assert operation.error["message"] == "The load of topic-v1 was cancelled, and loaderd ended with it."
    assert (row().status, row().desired_state) == ("unloaded", "unloaded")


def test_an_activation_whose_alias_had_moved_when_it_was_cancelled_has_succeeded(
    two_versions: tuple[ModelVersion, ModelVersion], tell: Tell
) -> None:
    _, new = two_versions
    operation = running("activate", new, desired_before="unloaded", cancel_requested=True)
    moved = ("topic", "live", "topic-v2", "topic-v1", "activate", "better", "ada", NOW)
    tell(AliasMoved(*moved, operation_id=str(operation.pk)))
    assert [spec.model_id for spec in take_over(FACTS)] == ["topic-v2"]
    operation.refresh_from_db()
    assert operation.status == "succeeded"


def test_an_optimisation_has_failed_and_concerns_no_model(transactional_db: None) -> None:
    operation = running("optimize", None)
    assert take_over(FACTS) == []
    operation.refresh_from_db()
    assert operation.status == "failed"
    assert "ended during the optimisation" in operation.error["message"]


def test_commands_in_the_queue_reach_the_new_daemon(two_versions: tuple[ModelVersion, ModelVersion]) -> None:
    _, new = two_versions
    operations = [
        Operation.objects.create(kind="activate", version=new),
        Operation.objects.create(kind="optimize", version=None),
    ]
    assert [spec.model_id for spec in take_over(FACTS)] == ["topic-v1", "topic-v2"]
    assert {operation.status for operation in Operation.objects.all()} == {"queued"}
    assert len(operations) == Operation.objects.count()


def test_what_the_dead_daemon_held_says_that_it_is_gone(make_version: MakeVersion) -> None:
    make_version(status="loaded")
    take_over(FACTS)
    assert (row().status, row().status_cause) == ("unloaded", "gone")


def test_alerts_of_the_dead_daemon_are_resolved(make_version: MakeVersion, tell: Tell) -> None:
    make_version()
    tell(AlertReport("unhealthy:topic-v1", "unhealthy", "topic-v1", "It is wrong.", NOW, is_open=True))
    assert Alert.objects.get().state == "open"
    take_over(FACTS)
    assert Alert.objects.get().state == "resolved"


# What is wished


def test_the_most_important_come_first(make_version: MakeVersion) -> None:
    now = timezone.now()
    wished: dict[str, dict[str, Any]] = {
        "late": {"priority": 10, "last_used_at": now},
        "plain-old": {"last_used_at": now - timedelta(days=2)},
        "plain-new": {"last_used_at": now - timedelta(days=1)},
        "plain-never": {},
        "live": {},
        "first": {"priority": 90},
    }
    for model_id, fields in wished.items():
        make_version(model_id, desired_state="loaded", **fields)
    live = row("live")
    Alias.objects.create(lineage=live.lineage, name="live", version=live, set_by="ada")
    other = row("plain-never")
    Alias.objects.create(lineage=other.lineage, name="candidate", version=other, set_by="ada")
    in_order = [spec.model_id for spec in take_over(FACTS)]
    assert in_order == ["first", "live", "plain-new", "plain-old", "plain-never", "late"]


def test_specs_know_what_was_measured_on_this_device(make_version: MakeVersion) -> None:
    for device in ("cpu", "H100"):
        make_version(
            f"on-{device}",
            desired_state="loaded",
            measured_digest="a" * 64,
            measured_device=device,
            measured_peak_bytes=7,
        )
    assert {spec.model_id: spec.peak_bytes for spec in take_over(FACTS)} == {"on-cpu": 7, "on-H100": None}


def test_taking_over_many_wishes_costs_as_many_queries_as_few(
    make_version: MakeVersion, django_assert_max_num_queries: Any
) -> None:
    for number in range(3):
        make_version(f"m{number}", desired_state="loaded")
    with django_assert_max_num_queries(12):
        take_over(FACTS)
    for number in range(3, 40):
        make_version(f"m{number}", desired_state="loaded")
    with django_assert_max_num_queries(12):
        assert len(take_over(FACTS)) == 40
    assert Model.objects.count() == 40
