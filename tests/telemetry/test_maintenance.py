"""Rows grow coarser with age and go in the end; nothing is counted twice, and nothing is lost on the way."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone
from django_q.brokers import get_broker
from django_q.models import OrmQ, Schedule
from django_q.scheduler import scheduler

from loaderd import histogram
from modelhub.lifecycle import purging
from modelhub.lifecycle.models import LineageChange, Operation, StateChange
from modelhub.policy.effective import change
from modelhub.registry.models import ModelVersion
from modelhub.telemetry import maintenance
from modelhub.telemetry.maintenance import SCHEDULE_NAME, maintain
from modelhub.telemetry.models import Alert, Comparison, Sample, Trace
from modelhub.telemetry.queries import summary
from tests.telemetry.conftest import latencies

pytestmark = pytest.mark.django_db


def fill(version: ModelVersion | None, begin: datetime, count: int, seconds: int = 10, **fields: object) -> None:
    """`count` rows, the first ending `seconds` after `begin`."""
    values = {"requests": 2, "errors": 1, "histogram": latencies(0.001, 0.1), **fields}
    Sample.objects.bulk_create(
        Sample(version=version, at=begin + timedelta(seconds=seconds * number), seconds=seconds, **values)
        for number in range(1, count + 1)
    )


def ago(**age: float) -> datetime:
    """A moment on the grid of ten minutes."""
    now = timezone.now() - timedelta(**age)
    return now.replace(minute=now.minute // 10 * 10, second=0, microsecond=0)


def of_length(seconds: int) -> list[Sample]:
    return list(Sample.objects.filter(seconds=seconds).order_by("at"))


class TestLoadsOnDemand:
    def operation(self, version: ModelVersion, days: float, **fields: object) -> Operation:
        at = timezone.now() - timedelta(days=days)
        values = {"kind": "load", "status": "succeeded", "source": "demand", "finished_at": at, **fields}
        operation = Operation.objects.create(version=version, requested_at=at, **values)
        StateChange.objects.create(
            version=version, from_state="unloaded", to_state="loading", actor="x", at=at, operation=operation
        )
        LineageChange.objects.create(
            lineage=version.lineage, alias="live", kind="first", version=version, actor="x", at=at, operation=operation
        )
        return operation

    def test_they_go_in_chunks_with_the_states_they_changed(
        self, version: ModelVersion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(purging, "CHUNK_OPERATIONS", 2)
        change({"METRICS_RETENTION_DAYS": 5}, user=None)
        for _ in range(5):
            self.operation(version, days=6)
        kept = [
            self.operation(version, days=4),
            self.operation(version, days=6, source="api"),
            self.operation(version, days=6, status="running", finished_at=None),
        ]
        done = maintain()
        assert (done["purged"], done["is_done"]) == (10, True)
        assert set(Operation.objects.all()) == set(kept)
        assert {change.operation for change in StateChange.objects.all()} == set(kept)
        assert LineageChange.objects.filter(operation=None).count() == 5


class TestRollUp:
    def test_sums_are_added_and_the_highest_is_kept(self, version: ModelVersion) -> None:
        begin = ago(hours=3)
        fill(version, begin, 6, private_bytes=100, available_bytes=50)
        Sample.objects.filter(at=begin + timedelta(seconds=30)).update(private_bytes=300, available_bytes=20, queued=9)
        assert maintain()["rolled_up"] == 6
        (row,) = Sample.objects.all()
        assert (row.seconds, row.at, row.version) == (60, begin + timedelta(seconds=60), version)
        assert (row.requests, row.errors, row.private_bytes, row.available_bytes, row.queued) == (12, 6, 300, 20, 9)
        assert histogram.merged([row.histogram]) == histogram.merged([latencies(0.001, 0.1)] * 6)

    def test_the_host_is_rolled_up_too(self) -> None:
        fill(None, ago(hours=3), 12, requests=0, errors=0, histogram=[], budget_bytes=7)
        maintain()
        assert [(row.version, row.budget_bytes, row.histogram) for row in of_length(60)] == [(None, 7, [])] * 2

    def test_after_two_days_minutes_become_ten_minutes(self, version: ModelVersion) -> None:
        fill(version, ago(hours=72), 120)
        maintain()
        (first, second) = of_length(600)
        assert (first.requests, second.requests) == (120, 120)
        assert Sample.objects.count() == 2

    def test_what_is_young_stays_fine(self, version: ModelVersion) -> None:
        fill(version, ago(minutes=30), 6)
        fill(version, ago(hours=5), 6, seconds=60)
        assert maintain()["rolled_up"] == 0
        assert Sample.objects.count() == 12

    def test_a_summary_is_the_same_before_and_after(self, version: ModelVersion) -> None:
        fill(version, ago(hours=60), 100, private_bytes=5)
        fill(version, ago(hours=10), 100, private_bytes=7, items=3, cache_hits=2, cache_misses=1)
        fill(version, ago(minutes=60), 100)
        before = summary(version, 80 * 3600)
        maintain()
        after = summary(version, 80 * 3600)
        assert (after["cache_hits"], after["cache_misses"], after["cache_hit_rate"]) == (200, 100, 2 / 3)
        assert {**after, "loaded_seconds": 0} == {**before, "loaded_seconds": 0}
        assert {row.seconds for row in Sample.objects.all()} == {10, 60, 600}

    def test_what_comes_late_is_added_to_what_was_rolled_up(self, version: ModelVersion) -> None:
        """loaderd keeps its reports while Postgres is away."""
        begin = ago(hours=3)
        fill(version, begin, 3)
        maintain()
        fill(version, begin + timedelta(seconds=30), 3, histogram=latencies(5.0, 5.0))
        maintain()
        (row,) = Sample.objects.all()
        assert row.requests == 12
        assert histogram.merged([row.histogram]) == histogram.merged(
            [latencies(0.001, 0.1)] * 3 + [latencies(5.0, 5.0)] * 3
        )

    def test_a_second_run_changes_nothing(self, version: ModelVersion) -> None:
        fill(version, ago(hours=5), 30)
        maintain()
        rows = list(Sample.objects.order_by("pk").values())
        assert maintain()["rolled_up"] == 0
        assert list(Sample.objects.order_by("pk").values()) == rows

    def test_a_run_ends_with_its_time_and_the_next_goes_on(self, version: ModelVersion) -> None:
        fill(version, ago(hours=10), 6 * 60)
        first = maintain(limit_seconds=0.0)
        assert not first["is_done"]
        assert 0 < first["rolled_up"] < 360
        assert maintain(limit_seconds=None)["is_done"]
        assert sum(row.requests for row in of_length(60)) == 720


class TestPurge:
    def test_what_is_older_than_the_retention_goes(self, version: ModelVersion, make_version) -> None:
        other = make_version("mail-v2")
        for days in (8, 1):
            when = timezone.now() - timedelta(days=days)
            fill(version, when, 1, seconds=600)
            Trace.objects.create(version=version, at=when, status=200, route="live", total_seconds=1)
            Alert.objects.create(key=f"{days}", kind="x", opened_at=when, last_seen_at=when, resolved_at=when)
            Comparison.objects.create(lineage=version.lineage, live=version, candidate=other, since=when, last_at=when)
        long_open = timezone.now() - timedelta(days=30)
        Alert.objects.create(key="open", kind="x", opened_at=long_open, last_seen_at=long_open)
        assert maintain()["purged"] == 4
        assert [model.objects.count() for model in (Sample, Trace, Alert, Comparison)] == [1, 1, 2, 1]

    def test_the_policy_says_how_long(self, version: ModelVersion) -> None:
        fill(version, timezone.now() - timedelta(days=8), 1, seconds=600)
        change({"METRICS_RETENTION_DAYS": 30}, user=None)
        assert maintain()["purged"] == 0
        change({"METRICS_RETENTION_DAYS": 1}, user=None)
        assert maintain()["purged"] == 1

    def test_it_goes_by_pieces(self, version: ModelVersion, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(maintenance, "CHUNK_ROWS", 4)
        fill(version, timezone.now() - timedelta(days=20), 10)
        assert maintain(limit_seconds=None)["purged"] == 10


class TestAlone:
    @pytest.fixture
    def elsewhere(self, transactional_db: None) -> Iterator[None]:
        """Another run, on a connection of its own."""
        is_held, may_end = threading.Event(), threading.Event()

        def hold() -> None:
            with maintenance._alone():
                is_held.set()
                may_end.wait(10)
            connection.close()

        thread = threading.Thread(target=hold)
        thread.start()
        assert is_held.wait(10)
        yield
        may_end.set()
        thread.join(10)

    def test_the_second_of_two_runs_does_nothing(self, elsewhere: None, make_version) -> None:
        fill(make_version("mail-v1"), ago(hours=5), 6)
        assert maintain()["is_elsewhere"]
        assert Sample.objects.count() == 6


class TestSchedule:
    def test_the_queue_runs_it_every_ten_minutes(self) -> None:
        schedule = Schedule.objects.get(name=SCHEDULE_NAME)
        assert (schedule.func, schedule.minutes, schedule.repeats) == (
            "modelhub.telemetry.maintenance.maintain",
            10,
            -1,
        )

    @pytest.mark.django_db(transaction=True)  # the queue's scheduler closes its connection
    def test_its_turn_puts_it_into_the_queue(self) -> None:
        Schedule.objects.update(next_run=timezone.now() - timedelta(seconds=1))
        scheduler(broker=get_broker())
        (queued,) = OrmQ.objects.all()
        assert queued.task["func"] == "modelhub.telemetry.maintenance.maintain"
        assert Schedule.objects.get().next_run > timezone.now()

    def test_what_people_changed_stays(self) -> None:
        Schedule.objects.update(minutes=30)
        call_command("migrate", verbosity=0)
        assert Schedule.objects.get(name=SCHEDULE_NAME).minutes == 30

    def test_by_hand_it_tells_what_it_did(self, version: ModelVersion) -> None:
        fill(version, ago(hours=3), 6)
        said = io.StringIO()
        call_command("maintain", stdout=said)
        assert "6 rows rolled up, 0 deleted" in said.getvalue()
