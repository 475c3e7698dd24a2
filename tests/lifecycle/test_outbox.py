"""What waits to be written is merged where nothing is lost by it, bounded where it cannot be, and kept in order."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from loaderd.reporter import (
    AlertReport,
    AliasMoved,
    Comparison,
    HealthReport,
    OperationEnded,
    OperationProgress,
    Sample,
    StateReport,
    Trace,
)
from loaderd.states import LoadPhase, ModelState
from modelhub.lifecycle import outbox
from modelhub.lifecycle.outbox import Batch
from modelhub.lifecycle.reporting import DatabaseReporter
from modelhub.telemetry import models as telemetry
from tests.deadline import wait_until
from tests.lifecycle.conftest import MakeVersion, Tell, allow_connections

NOW = 1_800_000_000.0


def compared(**fields: Any) -> Comparison:
    return Comparison("topic", "topic-v1", "topic-v2", **{"at": NOW, **fields})


def sample(number: int) -> Sample:
    return Sample("topic-v1", NOW + 10 * number, 10.0, requests=number)


def trace(number: int) -> Trace:
    return Trace("topic-v1", NOW + number, 200, 0.01, None, None, 1, None, "ada", "live")


def alert(is_open: bool, at: float) -> AlertReport:
    return AlertReport("restarts:topic-v1", "restarts", "topic-v1", "It restarts.", at, is_open)


def moved(state: ModelState) -> StateReport:
    return StateReport("topic-v1", state, "asked for", NOW)


def batch_of(*reports: Any) -> Batch:
    batch = Batch()
    for report in reports:
        batch.add(report)
    return batch


def test_comparisons_of_two_versions_are_added_up() -> None:
    batch = batch_of(
        compared(compared=3, disagreed=1, live_requests=5, live_latency_seconds=0.5, live_histogram=[1, 2]),
        compared(
            compared=4, dropped=2, candidate_errors=1, live_latency_seconds=0.25, live_histogram=[0, 1, 7], at=NOW + 5
        ),
        Comparison("topic", "topic-v1", "topic-v3", NOW, compared=9),
    )
    assert len(batch.comparisons) == 2
    total = batch.comparisons[("topic", "topic-v1", "topic-v2")]
    assert (total.compared, total.disagreed, total.dropped, total.at) == (7, 1, 2, NOW + 5)
    assert (total.live_requests, total.candidate_errors, total.live_latency_seconds) == (5, 1, 0.75)
    assert list(total.live_histogram)[:4] == [1, 3, 7, 0]


def test_of_health_the_newest_counts_and_none_from_before_a_move() -> None:
    healthy, degraded = (HealthReport("topic-v1", status, "", NOW) for status in ("healthy", "degraded"))
    assert batch_of(healthy, degraded).health == {"topic-v1": degraded}
    assert batch_of(healthy, moved(ModelState.UNLOADED)).health == {}
    assert batch_of(moved(ModelState.LOADED), healthy).health == {"topic-v1": healthy}
    told_again = replace(moved(ModelState.LOADED), is_no_move=True)
    assert batch_of(moved(ModelState.LOADED), degraded, told_again).health == {"topic-v1": degraded}


def test_a_batch_put_behind_another_keeps_everything_in_order() -> None:
    older = batch_of(
        moved(ModelState.LOADED),
        alert(True, NOW),
        sample(1),
        HealthReport("topic-v1", "healthy", "", NOW),
        OperationProgress("7", "topic-v1", LoadPhase.LOADING, 0.5, NOW),
    )
    newer = batch_of(
        AliasMoved("topic", "live", "topic-v1", None, "activate", "", "ada", NOW),
        alert(False, NOW + 1),
        OperationEnded("7", NOW),
        sample(2),
        trace(1),
        compared(compared=1),
    )
    expected = [*older.events, *newer.events]
    older.add_newer(newer)
    assert older.events == expected
    assert [kept.requests for kept in older.samples] == [1, 2]
    assert (len(older.traces), len(older.comparisons), len(older.health), older.progress) == (1, 1, 1, {})
    assert [type(part.events[0]) for part in older.parts() if part.events] == [type(event) for event in expected]


def test_samples_and_traces_are_bounded_and_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_SAMPLES", 3)
    monkeypatch.setattr(outbox, "MAX_TRACES", 2)
    batch = batch_of(*(sample(number) for number in range(4)), *(trace(number) for number in range(3)))
    assert [kept.requests for kept in batch.samples] == [1, 2, 3]
    assert [kept.at for kept in batch.traces] == [NOW + 1, NOW + 2]
    assert batch.dropped == 2
    batch.add_newer(batch_of(*(sample(number) for number in range(4, 8))))
    assert [kept.requests for kept in batch.samples] == [5, 6, 7]
    assert batch.dropped == 2 + 1 + 3


@pytest.mark.django_db(transaction=True)
def test_what_was_dropped_while_postgres_was_away_is_said(
    make_version: MakeVersion,
    outage: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_version()
    monkeypatch.setattr(outbox, "MAX_SAMPLES", 5)
    reporter = DatabaseReporter()
    reporter._outbox.start()
    outage()
    reporter.report(moved(ModelState.LOADED))
    wait_until(lambda: reporter._outbox._is_away)
    for number in range(12):
        reporter.report(sample(number))
    allow_connections(True)
    with caplog.at_level(logging.WARNING):
        assert reporter.close(20)
    assert list(telemetry.Sample.objects.order_by("at").values_list("requests", flat=True)) == [7, 8, 9, 10, 11]
    assert "7 samples and traces were dropped" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_telemetry_reaches_its_tables(make_version: MakeVersion, tell: Tell) -> None:
    make_version("topic-v1", lineage="topic", version="1")
    make_version("topic-v2", lineage="topic", version="2")
    tell(
        sample(3),
        Sample(None, NOW, 10.0, budget_bytes=7),
        trace(1),
        compared(compared=3, disagreed=1),
        compared(compared=1),
        alert(True, NOW),
        alert(False, NOW + 5),
        alert(True, NOW + 9),
    )
    assert set(telemetry.Sample.objects.values_list("version__model_id", "requests", "budget_bytes")) == {
        ("topic-v1", 3, None),
        (None, 0, 7),
    }
    assert telemetry.Trace.objects.get().user == "ada"
    assert (telemetry.Comparison.objects.get().compared, telemetry.Comparison.objects.get().disagreed) == (4, 1)
    assert [found.state for found in telemetry.Alert.objects.order_by("opened_at")] == ["resolved", "open"]


@pytest.mark.django_db(transaction=True)
def test_one_that_waits_for_the_writing_is_woken_by_it(make_version: MakeVersion, outage: Callable[[], None]) -> None:
    make_version()
    reporter = DatabaseReporter()
    assert not reporter._outbox.written().done(), "nothing is written before the start"
    reporter._outbox.start()
    reporter._outbox.written().result(10)
    outage()
    reporter.report(moved(ModelState.LOADED))
    first = reporter._outbox.written()
    wait_until(lambda: reporter._outbox._is_away)
    second = reporter._outbox.written()
    assert not first.done()
    allow_connections(True)
    first.result(10)
    second.result(10)
    assert reporter.close(10)
    assert reporter._outbox.written().exception(10) is not None
