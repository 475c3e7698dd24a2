"""Where names lead, as loaderd reports it: the first live version, moves, marks, wishes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import transaction

from loaderd.errors import ActivationFailed, Cancelled, InsufficientMemory
from loaderd.reporter import AliasMoved, OperationEnded, StateReport
from loaderd.states import ModelState
from modelhub.lifecycle.alias_moves import record_moves
from modelhub.lifecycle.models import LineageChange, Operation
from modelhub.lifecycle.reporting import DatabaseReporter
from modelhub.registry.models import Alias, Model, ModelVersion
from tests.deadline import wait_until
from tests.lifecycle.conftest import MakeVersion, Tell, allow_connections

pytestmark = pytest.mark.django_db(transaction=True)

NOW = 1_800_000_000.0


@pytest.fixture
def topic(make_version: MakeVersion) -> Model:
    for number in (1, 2, 3):
        make_version(f"topic-v{number}", lineage="topic", version=f"{number}.0.0")
    return Model.objects.get(name="topic")


def version(number: int) -> ModelVersion:
    return ModelVersion.objects.get(model_id=f"topic-v{number}")


def loaded(number: int, **fields: Any) -> list[StateReport]:
    return [
        StateReport(f"topic-v{number}", state, "asked for", NOW, **fields)
        for state in (ModelState.LOADING, ModelState.LOADED)
    ]


def moved(number: int, previous: int | None = None, **fields: Any) -> AliasMoved:
    values: dict[str, Any] = {
        "lineage": "topic",
        "alias": "live",
        "model_id": f"topic-v{number}",
        "previous": previous and f"topic-v{previous}",
        "kind": "activate",
        "reason": "better",
        "user": "ada",
        "at": NOW,
    }
    return AliasMoved(**{**values, **fields})


def live() -> str:
    return Alias.objects.select_related("version").get(lineage__name="topic", name="live").version.model_id


def history() -> list[tuple[str, str]]:
    changes = LineageChange.objects.order_by("pk")
    return [(change.kind, change.details.get("version_id", "")) for change in changes]


def test_the_first_version_that_is_loaded_in_a_lineage_becomes_live(topic: Model, tell: Tell) -> None:
    operation = Operation.objects.create(kind="load", version=version(2), requested_by_name="ada")
    tell(*loaded(2, operation_id=str(operation.pk)))
    tell(*loaded(1), *loaded(3))
    assert live() == "topic-v2"
    assert Alias.objects.get().set_by == "ada"
    change = LineageChange.objects.get()
    assert (change.kind, change.version, change.previous, change.operation) == ("first", version(2), None, operation)
    assert change.at.timestamp() == NOW


def test_two_first_loads_in_one_batch_give_each_lineage_its_earliest(
    topic: Model, make_version: MakeVersion, reporter: DatabaseReporter, outage: Callable[[], None]
) -> None:
    make_version("mood-v1")
    outage()
    for report in (*loaded(3), *loaded(1), StateReport("mood-v1", ModelState.LOADED, "asked for", NOW)):
        reporter.report(report)
    wait_until(lambda: reporter._outbox._is_away)
    allow_connections(True)
    wait_until(lambda: Alias.objects.count() == 2)
    assert live() == "topic-v3"


def test_the_load_of_an_activation_leaves_the_name_to_the_activation(topic: Model, tell: Tell) -> None:
    operation = Operation.objects.create(kind="activate", version=version(1), status="running")
    tell(*loaded(1, operation_id=str(operation.pk)))
    assert not Alias.objects.exists()
    tell(moved(1, operation_id=str(operation.pk)))
    assert (live(), history()) == ("topic-v1", [("activate", "topic-v1")])
    assert LineageChange.objects.get().operation == operation


def test_a_move_is_recorded_with_who_why_and_when(topic: Model, tell: Tell) -> None:
    tell(*loaded(1), moved(2, previous=1, at=NOW + 5))
    change = LineageChange.objects.get(kind="activate")
    assert (change.alias, change.version, change.previous) == ("live", version(2), version(1))
    assert (change.actor, change.reason, change.at.timestamp()) == ("ada", "better", NOW + 5)
    assert change.details == {"version_id": "topic-v2", "previous_id": "topic-v1"}
    assert live() == "topic-v2"


def test_a_rollback_marks_what_it_left_until_that_is_live_again(topic: Model, tell: Tell) -> None:
    tell(moved(2, previous=1), moved(1, previous=2, kind="rollback", reason="worse", left_by_rollback="topic-v2"))
    assert (version(2).rolled_back_at.timestamp(), version(2).rolled_back_reason) == (NOW, "worse")
    assert version(1).rolled_back_at is None
    tell(moved(2, previous=1))
    assert (version(2).rolled_back_at, version(2).rolled_back_reason) == (None, "")


def test_moves_keep_their_order_while_postgres_is_away(
    topic: Model, reporter: DatabaseReporter, outage: Callable[[], None]
) -> None:
    outage()
    for report in loaded(1):
        reporter.report(report)
    previous = 1
    for number in (2, 3, 1, 2, 3):
        for report in loaded(number):
            reporter.report(report)
        reporter.report(moved(number, previous=previous))
        reporter.report(StateReport(f"topic-v{previous}", ModelState.UNLOADED, "replaced", NOW, ends_wish=True))
        previous = number
    wait_until(lambda: reporter._outbox._is_away)
    reporter.report(moved(1, previous=3, kind="rollback", left_by_rollback="topic-v3"))
    allow_connections(True)
    wait_until(lambda: LineageChange.objects.count() == 7)
    activated = [("activate", f"topic-v{number}") for number in (2, 3, 1, 2, 3)]
    assert history() == [("first", "topic-v1"), *activated, ("rollback", "topic-v1")]
    assert live() == "topic-v1"
    assert version(3).rolled_back_at is not None


def test_a_version_that_was_left_is_not_wished_any_more_unless_another_name_leads_to_it(
    topic: Model, tell: Tell
) -> None:
    ModelVersion.objects.update(desired_state="loaded")
    tell(moved(2, previous=1))
    assert [version(number).desired_state for number in (1, 2)] == ["unloaded", "loaded"]
    Alias.objects.create(lineage=topic, name="fallback", version=version(2), set_by="ada")
    tell(moved(3, previous=2))
    assert version(2).desired_state == "loaded"


def test_a_candidate_that_becomes_live_takes_its_share_with_it(topic: Model, tell: Tell) -> None:
    Alias.objects.create(lineage=topic, name="candidate", version=version(2), set_by="ada")
    Model.objects.update(candidate_percent=20.0, shadow=True)
    tell(moved(3))
    topic.refresh_from_db()
    assert (topic.candidate_percent, topic.shadow) == (20.0, True)
    tell(moved(2, previous=3))
    topic.refresh_from_db()
    assert (topic.candidate_percent, topic.shadow, topic.traffic_changed_at.timestamp()) == (0.0, False, NOW)
    assert LineageChange.objects.get(kind="traffic").reason == "its candidate became live"


def test_a_candidate_that_becomes_live_by_its_first_load_takes_its_share_with_it(topic: Model, tell: Tell) -> None:
    Alias.objects.create(lineage=topic, name="candidate", version=version(2), set_by="ada")
    Model.objects.update(candidate_percent=20.0)
    tell(*loaded(2))
    topic.refresh_from_db()
    assert (live(), topic.candidate_percent, topic.traffic_changed_at.timestamp()) == ("topic-v2", 0.0, NOW)
    assert list(LineageChange.objects.order_by("pk").values_list("kind", "actor")) == [
        ("first", "loaderd"),
        ("traffic", "loaderd"),
    ]


def test_the_load_of_another_version_leaves_the_share(topic: Model, tell: Tell) -> None:
    Alias.objects.create(lineage=topic, name="candidate", version=version(2), set_by="ada")
    Model.objects.update(candidate_percent=20.0)
    tell(*loaded(1), *loaded(2))
    topic.refresh_from_db()
    assert (live(), topic.candidate_percent) == ("topic-v1", 20.0)


def test_a_move_of_what_was_deleted_does_not_hold_up_the_rest(topic: Model, tell: Tell) -> None:
    version(3).delete()
    tell(moved(3, previous=1), moved(2, previous=3), moved(1, lineage="ghost"))
    assert live() == "topic-v2"
    assert LineageChange.objects.get().details == {"version_id": "topic-v2", "previous_id": "topic-v3"}


def test_a_move_costs_a_bounded_number_of_queries(topic: Model, django_assert_max_num_queries: Any) -> None:
    with transaction.atomic(), django_assert_max_num_queries(9):
        record_moves([moved(2, previous=1, kind="rollback", left_by_rollback="topic-v1")])


# How an activation ends


@pytest.mark.parametrize(
    "error", [ActivationFailed("It died."), InsufficientMemory("No room."), Cancelled("Enough.")], ids=lambda e: e.code
)
@pytest.mark.parametrize("desired_before", ["unloaded", "loaded"])
def test_a_failed_activation_leaves_the_new_versions_wish_as_it_was(
    topic: Model, tell: Tell, error: Any, desired_before: str
) -> None:
    ModelVersion.objects.update(desired_state="loaded")
    operation = Operation.objects.create(
        kind="activate", version=version(2), status="running", parameters={"desired_before": desired_before}
    )
    tell(*loaded(1), OperationEnded(str(operation.pk), NOW, error=error.to_message()))
    assert (version(2).desired_state, version(1).desired_state, live()) == (desired_before, "loaded", "topic-v1")


def test_an_activation_that_fails_after_the_move_keeps_its_wish(topic: Model, tell: Tell) -> None:
    ModelVersion.objects.filter(pk=version(2).pk).update(desired_state="loaded")
    operation = Operation.objects.create(
        kind="activate", version=version(2), status="running", parameters={"desired_before": "unloaded"}
    )
    tell(
        moved(2, previous=1, operation_id=str(operation.pk)),
        OperationEnded(str(operation.pk), NOW, error=ActivationFailed("The old one hangs.").to_message()),
    )
    assert version(2).desired_state == "loaded"


def test_an_unload_that_waits_behind_a_failed_activation_counts(topic: Model, tell: Tell) -> None:
    operation = Operation.objects.create(
        kind="activate", version=version(2), status="running", parameters={"desired_before": "loaded"}
    )
    Operation.objects.create(kind="unload", version=version(2))
    tell(OperationEnded(str(operation.pk), NOW, error=ActivationFailed("It died.").to_message()))
    assert version(2).desired_state == "unloaded"
