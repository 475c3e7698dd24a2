"""Which version of a lineage is live, how it becomes so, and who was live when; aliases and traffic."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.utils import timezone
from django_q.models import OrmQ

from loaderd.errors import (
    ArtifactRefused,
    InvalidInput,
    LoaderdError,
    LoaderUnreachable,
    PermissionDenied,
    StateForbids,
    UnknownModel,
)
from modelhub.lifecycle.actions import cancel, request_load, request_unload
from modelhub.lifecycle.models import LineageChange, LoaderStatus, Operation
from modelhub.lifecycle.versions import (
    live_of,
    named,
    periods,
    previous_live,
    remove_alias,
    request_activate,
    request_rollback,
    set_alias,
    set_traffic,
    was_live,
)
from modelhub.registry.models import Alias, Model, ModelVersion
from tests.lifecycle.conftest import MakeVersion, in_thread
from tests.lifecycle.fake_loaderd import FakeLoaderd

pytestmark = pytest.mark.django_db


@pytest.fixture
def topic(make_version: MakeVersion, loaderd_is_heard: LoaderStatus) -> Model:
    """A lineage of three versions, none live."""
    for number in (1, 2, 3):
        make_version(f"topic-v{number}", lineage="topic", version=f"{number}.0.0")
    return Model.objects.get(name="topic")


def version(number: int) -> ModelVersion:
    return ModelVersion.objects.get(model_id=f"topic-v{number}")


def make_live(number: int, kind: str = "activate", **fields: Any) -> LineageChange:
    """As loaderd's reports leave it."""
    lineage, target = Model.objects.get(name="topic"), version(number)
    before = live_of(lineage)
    Alias.objects.update_or_create(lineage=lineage, name="live", defaults={"version": target, "set_by": "ada"})
    if kind == "rollback":
        assert before is not None
        ModelVersion.objects.filter(pk=before.pk).update(rolled_back_at=timezone.now())
    return LineageChange.objects.create(
        lineage=lineage,
        alias="live",
        kind=kind,
        version=target,
        previous=before,
        details={"version_id": target.model_id, "previous_id": before and before.model_id},
        **{"actor": "ada", "at": timezone.now(), **fields},
    )


def activate(number: int, user: User | None = None, **options: Any) -> Operation:
    return request_activate(version(number), user=user, source="api", **options)


def roll_back(topic: Model, to: int | None = None, **options: Any) -> Operation:
    target = None if to is None else version(to)
    return request_rollback(topic, to=target, **{"user": None, "source": "api", **options})


# Activate and roll back


def test_an_activation_writes_wish_operation_and_task(topic: Model, admin: User) -> None:
    operation = activate(2, admin, reason="better on mails", allow_gap=True)
    stored = Operation.objects.get()
    assert stored == operation
    assert (stored.kind, stored.status, stored.version, stored.reason) == (
        "activate",
        "queued",
        version(2),
        "better on mails",
    )
    assert stored.parameters == {"allow_gap": True, "desired_before": "unloaded"}
    assert version(2).desired_state == "loaded"
    assert OrmQ.objects.get().task["args"] == (str(operation.pk),)
    assert live_of(topic) is None, "loaderd moves it"


@pytest.mark.django_db(transaction=True)
def test_two_activations_of_one_version_are_one(topic: Model) -> None:
    together = threading.Barrier(6)
    ids: list[Any] = []

    def ask() -> None:
        together.wait(10)
        ids.append(activate(2).pk)

    for thread in [in_thread(ask) for _ in range(6)]:
        thread.join(20)
    assert (len(ids), len(set(ids)), OrmQ.objects.count()) == (6, 1, 1)


def test_an_activation_is_not_joined_by_one_that_may_leave_a_gap(topic: Model) -> None:
    first = activate(2)
    with pytest.raises(StateForbids, match="activation of topic-v2 is under way without allow_gap"):
        activate(2, allow_gap=True)
    assert activate(2).pk == first.pk
    Operation.objects.update(parameters={"allow_gap": True})
    with pytest.raises(StateForbids, match="is under way with allow_gap; cancel it"):
        activate(2)
    assert Operation.objects.count() == 1


def test_a_lineage_moves_once_at_a_time(topic: Model) -> None:
    make_live(1)
    activate(2)
    with pytest.raises(StateForbids, match="activation of topic-v2 is under way; cancel it"):
        activate(3)
    with pytest.raises(StateForbids, match="activation of topic-v2 is under way"):
        roll_back(topic, to=3)
    assert version(3).desired_state == "unloaded"
    assert Operation.objects.count() == 1


def test_another_lineage_does_not_wait(topic: Model, make_version: MakeVersion) -> None:
    activate(2)
    other = make_version("mood-v1")
    assert request_activate(other, user=None, source="api").status == "queued"


def test_activating_what_is_live_and_loaded_ends_at_once(topic: Model) -> None:
    make_live(1)
    ModelVersion.objects.filter(model_id="topic-v1").update(status="loaded")
    operation = activate(1)
    assert operation.status == "succeeded"
    assert operation.result == {
        "model_id": "topic-v1",
        "status": "live",
        "was_live": True,
        "previous": None,
        "load_seconds": None,
        "freed_bytes": None,
        "gap_seconds": None,
    }
    assert not OrmQ.objects.exists()


def test_activating_what_is_live_and_not_loaded_or_on_its_way_out_reaches_loaderd(topic: Model) -> None:
    make_live(1)
    assert activate(1).status == "queued"
    Operation.objects.all().delete()
    ModelVersion.objects.filter(model_id="topic-v1").update(status="loaded")
    request_unload(version(1), user=None, source="api")
    assert activate(1).status == "queued"


@pytest.mark.parametrize(
    ("fields", "error"),
    [({"artifact_format": "pickle"}, ArtifactRefused), ({"missing_since": timezone.now()}, StateForbids)],
)
def test_what_may_not_be_loaded_cannot_become_live(
    topic: Model, fields: dict[str, Any], error: type[LoaderdError]
) -> None:
    ModelVersion.objects.filter(model_id="topic-v2").update(**fields)
    with pytest.raises(error):
        activate(2)
    assert (version(2).desired_state, Operation.objects.count()) == ("unloaded", 0)


def test_without_loaderd_it_is_refused_and_nothing_changes(topic: Model) -> None:
    LoaderStatus.objects.all().delete()
    with pytest.raises(LoaderUnreachable, match="the activate of topic-v2 was refused and nothing has changed"):
        activate(2)
    assert (version(2).desired_state, Operation.objects.count()) == ("unloaded", 0)


def test_a_rollback_goes_to_the_version_that_was_live_before(topic: Model) -> None:
    make_live(1, "first")
    make_live(3)
    operation = roll_back(topic, reason="wrong on mails")
    assert (operation.kind, operation.version, operation.reason) == ("rollback", version(1), "wrong on mails")
    assert version(1).desired_state == "loaded"


def test_a_rollback_to_a_named_version_needs_no_history(topic: Model) -> None:
    make_live(3)
    ModelVersion.objects.filter(model_id="topic-v2").update(rolled_back_at=timezone.now())
    assert roll_back(topic, to=2).version == version(2)


def test_a_rollback_that_leads_nowhere_is_refused(topic: Model, make_version: MakeVersion) -> None:
    with pytest.raises(StateForbids, match="No version of topic was live before"):
        roll_back(topic)
    make_live(1, "first")
    with pytest.raises(StateForbids, match="No version of topic was live before"):
        roll_back(topic)
    with pytest.raises(StateForbids, match="topic-v1 is live already"):
        roll_back(topic, to=1)
    with pytest.raises(StateForbids, match="mood-v1 is no version of topic"):
        request_rollback(topic, to=make_version("mood-v1"), user=None, source="api")
    assert not Operation.objects.exists()


def test_repeated_rollbacks_go_further_back_and_never_to_what_one_left(topic: Model) -> None:
    for number, kind in ((1, "first"), (2, "activate"), (3, "activate")):
        make_live(number, kind)
    assert previous_live(topic) == version(2)
    make_live(2, "rollback")
    assert previous_live(topic) == version(1), "topic-v3 was left by a rollback"
    make_live(1, "rollback")
    assert previous_live(topic) is None


@pytest.mark.parametrize(
    "fields", [{"missing_since": timezone.now()}, {"refusal": "It is a link."}, {"rolled_back_at": timezone.now()}]
)
def test_what_is_gone_refused_or_marked_is_passed_over(topic: Model, fields: dict[str, Any]) -> None:
    for number in (1, 2, 3):
        make_live(number)
    ModelVersion.objects.filter(model_id="topic-v2").update(**fields)
    assert previous_live(topic) == version(1)


def test_the_permission_to_activate_is_asked_for_everywhere(topic: Model) -> None:
    grace = User.objects.create_user("grace")
    make_live(1)
    attempts: list[Any] = [
        lambda user: activate(2, user),
        lambda user: roll_back(topic, to=2, user=user),
        lambda user: set_alias(topic, "candidate", version(2), user=user),
        lambda user: remove_alias(topic, "candidate", user=user),
        lambda user: set_traffic(topic, candidate_percent=5.0, shadow=None, user=user),
    ]
    for attempt in attempts:
        with pytest.raises(PermissionDenied, match=r"grace may not .* registry\.activate_modelversion"):
            attempt(grace)
    assert (Operation.objects.count(), Alias.objects.count(), LineageChange.objects.count()) == (0, 1, 1)
    grace.user_permissions.add(Permission.objects.get(codename="activate_modelversion"))
    assert activate(2, User.objects.get(pk=grace.pk)).requested_by == grace


def test_cancelling_a_queued_activation_puts_its_wish_back(topic: Model, admin: User) -> None:
    assert cancel(activate(2), user=admin).status == "cancelled"
    assert version(2).desired_state == "unloaded"
    ModelVersion.objects.update(desired_state="loaded", status="loaded")
    cancel(activate(3), user=admin)
    assert version(3).desired_state == "loaded", "it was loaded beside the live one before"


def test_cancelling_an_activation_that_runs_is_left_to_loaderd(
    make_version: MakeVersion, admin: User, silent_loaderd: FakeLoaderd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelhub.lifecycle.actions.CANCEL_SECONDS", 0.1)
    operation = request_activate(make_version("topic-v2"), user=admin, source="api")
    Operation.objects.update(status="running")
    assert cancel(operation, user=admin).status == "running"
    assert silent_loaderd.received == [{"command": "cancel", "operation_id": str(operation.pk)}]
    assert version(2).desired_state == "loaded", "loaderd may have moved the alias; how it ends decides"


def test_a_load_that_waits_is_joined_though_an_activation_is_behind_it(topic: Model) -> None:
    load = request_load(version(2), user=None, source="api")
    activate(2)
    assert request_load(version(2), user=None, source="api").pk == load.pk


# Who was live when


def test_periods_tell_who_was_live_from_when_to_when(topic: Model, django_assert_num_queries: Any) -> None:
    now = timezone.now()
    times = [now - timedelta(hours=hours) for hours in (3, 2, 1)]
    make_live(1, "first", at=times[0], actor="loaderd")
    make_live(2, at=times[1], reason="better")
    make_live(1, "rollback", at=times[2], reason="worse")
    set_alias(topic, "candidate", version(3), user=None)
    with django_assert_num_queries(1):
        told = periods(topic)
    assert [(p.version_id, p.since, p.until, p.kind, p.reason, p.actor) for p in told] == [
        ("topic-v1", times[2], None, "rollback", "worse", "ada"),
        ("topic-v2", times[1], times[2], "activate", "better", "ada"),
        ("topic-v1", times[0], times[1], "first", "", "loaderd"),
    ]


def test_a_long_history_is_not_read_for_what_is_live_and_was_before(
    topic: Model, django_assert_num_queries: Any
) -> None:
    for number in (3, 1, 2, 2, 2):
        make_live(number)
    assert [period.version_id for period in periods(topic, limit=2)] == ["topic-v2", "topic-v2"]
    assert periods(topic, limit=3) == periods(topic)[:3]
    with django_assert_num_queries(2):
        before = previous_live(topic)
    assert before == version(1)


def test_a_version_was_live_or_never(topic: Model) -> None:
    make_live(1)
    make_live(2)
    set_alias(topic, "candidate", version(3), user=None)
    assert [was_live(version(number)) for number in (1, 2, 3)] == [True, True, False]


def test_the_history_outlives_a_version(topic: Model) -> None:
    make_live(2)
    make_live(1)
    version(2).delete()
    assert [period.version_id for period in periods(topic)] == ["topic-v1", "topic-v2"]
    assert previous_live(topic) is None


# Names


def test_a_name_is_a_model_then_a_lineages_live_version_then_its_highest(
    topic: Model, make_version: MakeVersion
) -> None:
    assert named("topic-v1") == version(1)
    make_version("topic-v10", lineage="topic", version="10.0.0")
    make_version("topic-next", lineage="topic", version="11.0.0-rc.1", missing_since=timezone.now())
    assert named("topic").model_id == "topic-next"
    make_live(2)
    assert named("topic") == version(2)
    make_version("both-v1", lineage="both")
    model = make_version("both", lineage="both", version="0.1")
    assert named("both") == model
    with pytest.raises(UnknownModel, match="'ghost'"):
        named("ghost")


# Aliases and traffic


def test_an_alias_is_set_moved_and_removed_with_a_history(topic: Model, admin: User) -> None:
    alias = set_alias(topic, "canary", version(2), user=admin, reason="to try")
    assert (alias.version, alias.set_by) == (version(2), "ada")
    set_alias(topic, "canary", version(3), user=admin)
    set_alias(topic, "canary", version(3), user=admin)
    remove_alias(topic, "canary", user=admin, reason="tried")
    assert not Alias.objects.exists()
    history = LineageChange.objects.order_by("pk").values_list("kind", "alias", "details", "reason", "actor")
    assert list(history) == [
        ("set", "canary", {"version_id": "topic-v2", "previous_id": None}, "to try", "ada"),
        ("set", "canary", {"version_id": "topic-v3", "previous_id": "topic-v2"}, "", "ada"),
        ("remove", "canary", {"version_id": None, "previous_id": "topic-v3"}, "tried", "ada"),
    ]


def test_live_is_neither_set_nor_removed(topic: Model) -> None:
    make_live(1)
    with pytest.raises(StateForbids, match="activate topic-v2"):
        set_alias(topic, "live", version(2), user=None)
    with pytest.raises(StateForbids, match="keeps its live version"):
        remove_alias(topic, "live", user=None)


@pytest.mark.parametrize("name", ["", "1st", "has space", "a/b", "x" * 65, "née"])
def test_a_name_that_is_none_is_refused(topic: Model, name: str) -> None:
    with pytest.raises(InvalidInput, match="is no name for an alias"):
        set_alias(topic, name, version(1), user=None)


def test_an_alias_that_would_lead_astray_is_refused(topic: Model, make_version: MakeVersion) -> None:
    make_live(1)
    make_version("topic-edge", lineage="topic", version="edge")
    with pytest.raises(StateForbids, match="mood-v1 is no version of topic"):
        set_alias(topic, "candidate", make_version("mood-v1"), user=None)
    with pytest.raises(StateForbids, match="topic-v1 is live; a candidate is another version"):
        set_alias(topic, "candidate", version(1), user=None)
    with pytest.raises(StateForbids, match="edge is a version of topic"):
        set_alias(topic, "edge", version(2), user=None)
    ModelVersion.objects.filter(model_id="topic-v2").update(missing_since=timezone.now())
    with pytest.raises(StateForbids, match="topic-v2 is not in the store any more"):
        set_alias(topic, "candidate", version(2), user=None)
    with pytest.raises(UnknownModel, match="no alias 'candidate'"):
        remove_alias(topic, "candidate", user=None)


def test_traffic_needs_a_candidate_and_ends_with_it(topic: Model, admin: User) -> None:
    with pytest.raises(StateForbids, match="has no candidate"):
        set_traffic(topic, candidate_percent=10.0, shadow=None, user=admin)
    set_alias(topic, "candidate", version(2), user=admin)
    assert set_traffic(topic, candidate_percent=10.0, shadow=None, user=admin).shadow is False
    lineage = set_traffic(topic, candidate_percent=None, shadow=True, user=admin)
    assert (lineage.candidate_percent, lineage.shadow) == (10.0, True)
    changed_at = lineage.traffic_changed_at
    assert changed_at is not None
    set_alias(topic, "candidate", version(3), user=admin)
    topic.refresh_from_db()
    assert topic.traffic_changed_at > changed_at, "another pair is compared"
    remove_alias(topic, "candidate", user=admin)
    topic.refresh_from_db()
    assert (topic.candidate_percent, topic.shadow) == (0.0, False)
    traffic = LineageChange.objects.filter(kind="traffic").order_by("pk").values_list("details", flat=True)
    assert list(traffic) == [
        {"candidate_percent": 10.0, "shadow": False},
        {"candidate_percent": 10.0, "shadow": True},
        {"candidate_percent": 0.0, "shadow": False},
    ]


def test_traffic_between_a_version_and_itself_is_refused(topic: Model) -> None:
    set_alias(topic, "candidate", version(2), user=None)
    make_live(2)
    with pytest.raises(StateForbids, match="The candidate of topic is live"):
        set_traffic(topic, candidate_percent=None, shadow=True, user=None)
    set_traffic(topic, candidate_percent=0.0, shadow=False, user=None)
    assert not LineageChange.objects.filter(kind="traffic").exists()


@pytest.mark.parametrize("name", ["nul\0", "a/b", "\ud800", ""])
def test_what_is_no_name_for_an_alias_is_no_alias_to_remove(topic: Model, name: str) -> None:
    with pytest.raises(UnknownModel, match="topic has no alias"):
        remove_alias(topic, name, user=None)


def test_the_history_takes_any_reason(topic: Model) -> None:
    set_alias(topic, "canary", version(2), user=None, reason="nul\0")
    assert LineageChange.objects.get().reason == "nul\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("percent", [-0.1, 100.1, float("nan"), float("inf")])
def test_a_share_outside_0_to_100_is_refused(topic: Model, percent: float) -> None:
    with pytest.raises(InvalidInput, match="a number from 0 to 100"):
        set_traffic(topic, candidate_percent=percent, shadow=None, user=None)
