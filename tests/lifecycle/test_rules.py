"""loaderd's rules: what they hold, what they cost, and who tells loaderd that they changed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import transaction

from loaderd.reporter import AliasMoved, Heartbeat, ModelRuntime
from loaderd.rules import LineageTraffic, ModelPolicy, Rules
from modelhub.lifecycle.observations import record_heartbeat
from modelhub.lifecycle.reporting import DatabaseReporter
from modelhub.lifecycle.rules import present_rules
from modelhub.lifecycle.versions import remove_alias, set_alias, set_traffic
from modelhub.policy.effective import change
from modelhub.registry.models import Alias, Model, ModelVersion
from tests.deadline import wait_until
from tests.lifecycle.conftest import MakeVersion, allow_connections, terminate_backends

NOW = 1_800_000_000.0


@pytest.mark.django_db
def test_they_hold_the_settings_in_force_with_their_units() -> None:
    rules = present_rules()
    assert (rules.max_memory_bytes, rules.max_gpu_memory_bytes) == (4096 * 2**20, 2048 * 2**20)
    assert (rules.unused_timeout_seconds, rules.optimization_interval_seconds) == (24 * 3600, 600)
    assert rules == Rules(max_memory_bytes=4096 * 2**20, max_gpu_memory_bytes=2048 * 2**20)
    change({"MAX_MEMORY_USAGE_MB": 0, "HANG_SECONDS": 7.5, "PERFORMANCE_LOG_LEVEL": "ERROR"}, user=None)
    rules = present_rules()
    assert (rules.max_memory_bytes, rules.hang_seconds, rules.log_level) == (None, 7.5, "ERROR")


@pytest.mark.django_db
def test_they_name_the_models_and_lineages_that_somebody_decided_on(
    make_version: MakeVersion, django_assert_num_queries: Any
) -> None:
    for number in range(20):
        make_version(f"plain-{number}")
    make_version("pinned", pinned=True)
    make_version("first", priority=90)
    make_version("short", keep_alive_seconds=60.0, autoload=True)
    make_version("kept", cache_enabled=True)
    make_version("brief", cache_ttl_seconds=5.0)
    for number in (1, 2):
        make_version(f"topic-v{number}", lineage="topic", version=str(number))
    topic = Model.objects.get(name="topic")
    Alias.objects.create(lineage=topic, name="live", version=topic.versions.get(version="1"), set_by="ada")
    set_alias(topic, "candidate", topic.versions.get(version="2"), user=None)
    set_traffic(topic, candidate_percent=12.5, shadow=True, user=None)
    with django_assert_num_queries(3):
        rules = present_rules()
    assert rules.models == {
        "pinned": ModelPolicy(pinned=True),
        "first": ModelPolicy(priority=90),
        "short": ModelPolicy(autoload=True, keep_alive_seconds=60.0),
        "kept": ModelPolicy(cache_enabled=True),
        "brief": ModelPolicy(cache_ttl_seconds=5.0),
    }
    aliases = {"live": "topic-v1", "candidate": "topic-v2"}
    assert rules.lineages == {"topic": LineageTraffic(aliases, candidate_percent=12.5, shadow=True)}


# Through the reporter


@pytest.fixture
def told(reporter: DatabaseReporter) -> threading.Semaphore:
    """Released at each callback; that of the connecting is taken already."""
    called = threading.Semaphore(0)
    reporter.on_rules_changed(called.release)
    assert called.acquire(timeout=10)
    return called


@pytest.mark.django_db(transaction=True)
def test_every_decision_of_a_person_is_told(told: threading.Semaphore, make_version: MakeVersion, admin: User) -> None:
    first, second = (make_version(f"topic-v{n}", lineage="topic", version=str(n)) for n in (1, 2))
    topic = first.lineage
    while told.acquire(timeout=0.3):
        pass  # of their making
    decisions: list[Callable[[], Any]] = [
        lambda: change({"HANG_SECONDS": 5.0}, user=admin),
        lambda: set_alias(topic, "candidate", second, user=admin),
        lambda: set_traffic(topic, candidate_percent=5.0, shadow=None, user=admin),
        lambda: remove_alias(topic, "candidate", user=admin),
        lambda: ModelVersion(pk=first.pk, pinned=True).save(update_fields=["pinned"]),
        lambda: ModelVersion(pk=first.pk, cache_enabled=True).save(update_fields=["cache_enabled"]),
        lambda: second.delete(),
    ]
    for decision in decisions:
        decision()
        assert told.acquire(timeout=10)
        while told.acquire(timeout=0.1):
            pass
    terminate_backends("query LIKE 'LISTEN%modelhub_rules%'")
    assert told.acquire(timeout=10), "what came while the connection was lost was missed"


@pytest.mark.django_db(transaction=True)
def test_what_changes_no_rule_is_not_told(told: threading.Semaphore, make_version: MakeVersion) -> None:
    version = make_version(status="loaded")
    while told.acquire(timeout=0.3):
        pass
    with transaction.atomic():
        record_heartbeat(Heartbeat(NOW, {}, {"topic-v1": ModelRuntime(pid=1)}))
    version.desired_state = "loaded"
    version.save(update_fields=["desired_state"])
    version.lineage.description = "Of mails."
    version.lineage.save(update_fields=["description"])
    assert not told.acquire(timeout=0.5)


@pytest.mark.django_db(transaction=True)
def test_a_move_that_was_just_reported_is_in_the_rules(reporter: DatabaseReporter, make_version: MakeVersion) -> None:
    for number in (1, 2):
        make_version(f"topic-v{number}", lineage="topic", version=str(number))
    for number in range(40):
        live = f"topic-v{1 + number % 2}"
        reporter.report(AliasMoved("topic", "live", live, None, "activate", "", "ada", NOW + number))
        assert reporter.rules().result(10).lineages["topic"].aliases == {"live": live}


@pytest.mark.django_db(transaction=True)
def test_while_postgres_is_away_rules_wait_and_know_the_move_then(
    reporter: DatabaseReporter, make_version: MakeVersion, outage: Callable[[], None]
) -> None:
    make_version()
    outage()
    reporter.report(AliasMoved("topic-v1", "live", "topic-v1", None, "activate", "", "ada", NOW))
    asked = reporter.rules()
    wait_until(lambda: reporter._outbox._is_away)
    assert not asked.done()
    allow_connections(True)
    assert asked.result(20).lineages["topic-v1"].aliases == {"live": "topic-v1"}


@pytest.mark.django_db(transaction=True)
def test_who_waits_for_rules_is_not_left_waiting_by_the_end(
    make_version: MakeVersion, outage: Callable[[], None]
) -> None:
    make_version()
    reporter = DatabaseReporter()
    reporter._outbox.start()
    outage()
    reporter.report(AliasMoved("topic-v1", "live", "topic-v1", None, "activate", "", "ada", NOW))
    asked = reporter.rules()
    assert reporter.close(0.3) is False
    assert asked.exception(10) is not None
    allow_connections(True)
