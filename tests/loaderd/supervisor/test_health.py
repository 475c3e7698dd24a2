"""Judging alone: the clock is a number, and what the daemon would see is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from loaderd import histogram
from loaderd.reporter import AlertReport, HealthReport, Report
from loaderd.rules import Rules
from loaderd.supervisor.health import Health

GOOD = {"ok": True, "seconds": 0.01, "reason": ""}
BAD = {"ok": False, "seconds": 0.01, "reason": "it answers its canary wrongly: label[0] is 1"}


class Ward:
    """A Health with a clock that is moved, models whose counters are made up, and what was reported."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.rules = Rules()
        self.reports: list[Report] = []
        self.ended: list[tuple[str, str]] = []
        self.signs: list[str] = []  # by which each of those was seen to hang
        self.health = Health(
            self.reports.append,
            lambda: self.rules,
            self._end_hung,
            clock=lambda: self.now,
            wall=lambda: self.now + 1e9,
        )
        self.counters: dict[str, dict[str, Any]] = {}
        self.silent: set[str] = set()

    def _end_hung(self, model_id: str, why: str, sign: str) -> None:
        self.ended.append((model_id, why))
        self.signs.append(sign)

    def load(self, model_id: str = "m", load_seconds: float = 0.5) -> None:
        self.counters[model_id] = {
            "requests": 0,
            "errors": 0,
            "histogram": histogram.empty(),
            "busy_seconds": 0.0,
        }
        self.health.loaded(model_id, {"ok": True, "seconds": 0.01, "recorded": None}, load_seconds)

    def answer(self, requests: int, errors: int = 0, seconds: float = 0.01, model_id: str = "m") -> None:
        counters = self.counters[model_id]
        counters["requests"] += requests
        counters["errors"] += errors
        counters["histogram"][histogram.bucket_of(seconds)] += requests

    def run(self, seconds: float) -> None:
        """Lets time pass as the daemon does: a look at each model and a tick each second."""
        end = self.now + seconds
        while self.now < end:
            self.now += 1.0
            for model_id, counters in self.counters.items():
                seen = None if model_id in self.silent else {**counters, "histogram": list(counters["histogram"])}
                self.health.counted(model_id, seen)
            self.health.tick()

    def status(self, model_id: str = "m") -> tuple[str, str]:
        facts = self.health.facts_of(model_id)
        return facts["status"], facts["reason"]

    def health_reports(self) -> list[HealthReport]:
        return [report for report in self.reports if isinstance(report, HealthReport)]

    def alerts(self) -> list[tuple[str, bool]]:
        """(key, opened or closed), in order."""
        return [(report.key, report.is_open) for report in self.reports if isinstance(report, AlertReport)]


@pytest.fixture
def ward() -> Ward:
    return Ward()


class TestStatus:
    def test_a_loaded_model_that_answers_its_canary_is_healthy(self, ward: Ward) -> None:
        ward.load()
        assert ward.status() == ("healthy", "answers its canary")
        (report,) = ward.health_reports()
        assert (report.status, report.canary_ok, report.canary_seconds) == ("healthy", True, 0.01)
        assert report.canary_at == report.heartbeat_at == ward.now + 1e9

    def test_nothing_changed_is_reported_once_a_minute(self, ward: Ward) -> None:
        ward.load()
        ward.run(125)
        assert len(ward.health_reports()) == 3
        assert ward.health_reports()[-1].heartbeat_at == pytest.approx(ward.now + 1e9, abs=10)

    def test_a_model_that_is_not_loaded_has_no_facts(self, ward: Ward) -> None:
        ward.load()
        ward.health.left("m")
        assert ward.health.facts_of("m") == {}
        ward.run(5)

    def test_errors_above_the_threshold_degrade_and_half_of_all_make_unhealthy(self, ward: Ward) -> None:
        ward.load()
        ward.answer(100, errors=10)
        ward.run(1)
        assert ward.status() == ("degraded", "10 % of its last 100 answers were errors")
        ward.answer(100, errors=100)
        ward.run(1)
        assert ward.status() == ("unhealthy", "55 % of its last 200 answers were errors")

    def test_requests_that_no_process_could_count_are_errors_too(self, ward: Ward) -> None:
        ward.load()
        ward.answer(10)
        ward.health.lost("m", 10)
        ward.run(1)
        assert ward.status() == ("unhealthy", "50 % of its last 20 answers were errors")

    def test_errors_are_forgotten_after_a_minute(self, ward: Ward) -> None:
        ward.load()
        ward.answer(100, errors=50)
        ward.run(30)
        assert ward.status()[0] == "unhealthy"
        ward.answer(100)
        ward.run(50)
        assert ward.status()[0] == "healthy"

    def test_a_handful_of_requests_tells_nothing_of_a_rate(self, ward: Ward) -> None:
        ward.load()
        ward.answer(9, errors=9)
        ward.run(5)
        assert ward.status()[0] == "healthy"

    def test_a_rate_that_swings_about_its_threshold_does_not_flap(self, ward: Ward) -> None:
        ward.load()
        ward.answer(1000, errors=51)
        ward.run(1)
        assert ward.status()[0] == "degraded"
        ward.answer(50)  # 4.9 %
        ward.run(1)
        assert ward.status()[0] == "degraded"
        ward.answer(400)  # 3.5 %
        ward.run(1)
        assert ward.status()[0] == "healthy"

    def test_slow_answers_degrade(self, ward: Ward) -> None:
        ward.load()
        ward.answer(80, seconds=0.01)
        ward.answer(20, seconds=8.0)
        ward.run(1)
        status, reason = ward.status()
        assert status == "degraded"
        assert reason.startswith("one of twenty answers took longer than ")

    def test_a_slow_canary_degrades(self, ward: Ward) -> None:
        ward.load()
        ward.health.checked("m", {"ok": True, "seconds": 6.25, "reason": ""})
        assert ward.status() == ("degraded", "its canary took 6.2 s")

    def test_a_failed_canary_makes_unhealthy_until_one_succeeds(self, ward: Ward) -> None:
        ward.load()
        ward.health.checked("m", BAD)
        assert ward.status() == ("unhealthy", "it answers its canary wrongly: label[0] is 1")
        ward.health.checked("m", GOOD)
        assert ward.status() == ("healthy", "answers its canary")
        assert [report.status for report in ward.health_reports()] == ["healthy", "unhealthy", "healthy"]

    def test_all_reasons_are_told_the_gravest_first(self, ward: Ward) -> None:
        ward.load()
        ward.answer(100, errors=10)
        ward.run(1)
        ward.health.checked("m", None)
        assert ward.status() == (
            "unhealthy",
            "its canary was not answered in time; 10 % of its last 100 answers were errors",
        )

    def test_changed_rules_count_at_once(self, ward: Ward) -> None:
        ward.load()
        ward.answer(100, errors=4)
        ward.run(1)
        assert ward.status()[0] == "healthy"
        ward.rules = replace(ward.rules, alert_error_rate_percent=3.0)
        ward.run(1)
        assert ward.status()[0] == "degraded"


class TestCanaries:
    def test_each_is_due_after_the_interval_and_named_once(self, ward: Ward) -> None:
        ward.load("a")
        ward.run(100)
        ward.load("b")
        ward.run(199)
        assert ward.health.due() == []
        ward.run(1)
        assert ward.health.due() == ["a"]
        assert ward.health.due() == []
        ward.health.checked("a", GOOD)
        ward.run(100)
        assert ward.health.due() == ["b"]

    def test_one_that_failed_is_run_again_soon(self, ward: Ward) -> None:
        ward.load()
        ward.health.checked("m", BAD)
        ward.run(14)
        assert ward.health.due() == []
        ward.run(1)
        assert ward.health.due() == ["m"]

    def test_the_answer_for_a_model_that_left_meanwhile_is_nothing(self, ward: Ward) -> None:
        ward.load()
        ward.run(300)
        ward.health.due()
        ward.health.left("m")
        ward.health.checked("m", BAD)
        assert ward.health.facts_of("m") == {}


class TestHanging:
    def test_a_process_without_a_sign_of_life_is_unhealthy_and_then_ended_once(self, ward: Ward) -> None:
        ward.load()
        ward.load("other")
        ward.run(5)
        ward.silent.add("m")
        ward.run(16)
        assert ward.status() == ("unhealthy", "no sign of life for 16 s")
        assert ward.ended == []
        ward.run(30)
        assert ward.ended == [("m", "its process gave no sign of life for 31 s (the limit is 30 s)")]
        assert ward.status("other")[0] == "healthy"

    def test_a_model_call_that_does_not_end_is_ended(self, ward: Ward) -> None:
        ward.load()
        for busy in range(40):
            ward.counters["m"]["busy_seconds"] = float(busy)
            ward.run(1)
            if busy == 20:
                assert ward.status() == ("degraded", "one model call has been running for 20 s")
        assert ward.ended == [("m", "one model call ran for 31 s (the limit is 30 s)")]

    def test_a_process_that_refuses_clients_is_ended_at_once_and_once(self, ward: Ward) -> None:
        ward.load()
        ward.health.knocked("m", answers=True)
        assert ward.ended == []
        ward.health.knocked("m", answers=False)
        ward.health.knocked("m", answers=False)
        assert ward.ended == [("m", "its door does not answer: its data socket takes no connection")]

    def test_a_door_that_takes_connections_and_answers_none_is_unhealthy_and_then_ended(self, ward: Ward) -> None:
        ward.load()
        ward.health.knocked("m", answers=None)
        ward.run(15)
        assert ward.status() == ("unhealthy", "its door has not answered for 15 s")
        ward.health.knocked("m", answers=True)
        ward.run(1)
        assert ward.status()[0] == "healthy"
        ward.health.knocked("m", answers=None)
        ward.run(31)
        assert ward.ended == [("m", "its door does not answer, for 31 s (the limit is 30 s)")]

    def test_the_next_process_is_watched_anew(self, ward: Ward) -> None:
        ward.load()
        ward.silent.add("m")
        ward.run(40)
        ward.health.died("m", 1, gave_up=False)
        ward.silent.clear()
        ward.load()
        ward.run(40)
        assert len(ward.ended) == 1
        assert ward.status()[0] == "healthy"

    def test_the_daemons_own_standstill_is_no_models_fault(self, ward: Ward) -> None:
        ward.load()
        ward.run(2)
        ward.now += 100.0  # stopped, or starved of the processor: nobody looked
        ward.health.tick()
        assert ward.ended == []
        ward.run(2)
        assert ward.status()[0] == "healthy"


class TestAlerts:
    def test_a_high_error_rate_that_comes_and_goes_is_one_alert(self, ward: Ward) -> None:
        ward.load()
        for _ in range(4):
            ward.answer(100, errors=10)
            ward.run(90)  # for about 60 s it is too high, then nobody asks
        assert ward.alerts() == [("error_rate:m", True)]
        ward.run(180)
        assert ward.alerts() == [("error_rate:m", True), ("error_rate:m", False)]

    def test_it_tells_value_and_threshold(self, ward: Ward) -> None:
        ward.load()
        ward.answer(100, errors=10)
        ward.run(1)
        (alert,) = [report for report in ward.reports if isinstance(report, AlertReport)]
        assert (alert.kind, alert.model_id, alert.value, alert.threshold) == ("error_rate", "m", 10.0, 5.0)
        assert alert.message == "m: 10 % of its last 100 answers were errors."

    def test_an_unhealthy_model_is_an_alert_until_it_is_well_for_a_minute_or_gone(self, ward: Ward) -> None:
        ward.load()
        ward.health.checked("m", BAD)
        ward.run(10)
        ward.health.checked("m", GOOD)
        ward.run(59)
        assert ward.alerts() == [("unhealthy:m", True)]
        ward.run(2)
        assert ward.alerts()[1:] == [("unhealthy:m", False)]
        ward.health.checked("m", BAD)
        ward.health.left("m")
        assert ward.alerts()[2:] == [("unhealthy:m", True), ("unhealthy:m", False)]

    def test_a_slow_load_is_an_alert_until_the_next_quick_one(self, ward: Ward) -> None:
        ward.load(load_seconds=12.0)
        ward.load(load_seconds=13.0)
        ward.load(load_seconds=1.0)
        assert ward.alerts() == [("load_seconds:m", True), ("load_seconds:m", True), ("load_seconds:m", False)]

    def test_restarts_are_one_alert_closed_after_a_steady_time(self, ward: Ward) -> None:
        ward.load()
        for attempt in (1, 2):
            ward.health.died("m", attempt, gave_up=False)
            ward.load()
            ward.run(30)
        ward.run(500)
        assert ward.alerts() == [("restarts:m", True), ("restarts:m", True)]
        ward.run(100)
        assert ward.alerts()[2:] == [("restarts:m", False)]

    def test_giving_up_is_an_alert_until_the_model_is_loaded_again(self, ward: Ward) -> None:
        ward.load()
        ward.health.died("m", 1, gave_up=False)
        ward.health.died("m", 3, gave_up=True)
        ward.run(5000)
        assert ward.alerts() == [("restarts:m", True), ("restarts:m", False), ("gave_up:m", True)]
        ward.load()
        assert ward.alerts()[3:] == [("gave_up:m", False)]

    def test_a_restart_that_would_only_fail_again_is_told_as_such(self, ward: Ward) -> None:
        ward.load()
        ward.health.died("m", 1, gave_up=False)
        ward.health.gave_up("m", "m.joblib has changed since it was registered.")
        assert ward.alerts() == [("restarts:m", True), ("restarts:m", False), ("gave_up:m", True)]
        alert = [report for report in ward.reports if isinstance(report, AlertReport)][-1]
        assert alert.message == (
            "The process of m died, and it could not be started again: m.joblib has changed since it was registered."
        )
        ward.health.dismissed("m")
        assert ward.alerts()[3:] == [("gave_up:m", False)]

    def test_a_model_that_stays_short_of_processes_is_an_alert_until_they_are_there_or_it_left(
        self, ward: Ward
    ) -> None:
        ward.load()
        ward.counters["m"]["missing_processes"] = 1
        ward.health.stays_short("m", "m lacks 1 of its processes.")
        ward.run(5000)
        assert ward.status()[0] == "degraded"
        assert ward.alerts() == [("gave_up:m", True)]
        ward.counters["m"]["missing_processes"] = 0
        ward.run(1)
        assert ward.alerts()[1:] == [("gave_up:m", False)]
        ward.health.stays_short("m", "m lacks 1 of its processes.")
        ward.health.left("m")
        assert ward.alerts()[2:] == [("gave_up:m", True), ("gave_up:m", False)]

    def test_processes_that_wait_for_memory_are_told_and_an_alert_until_they_are_there_or_it_left(
        self, ward: Ward
    ) -> None:
        ward.load()
        ward.counters["m"]["missing_processes"] = 1
        ward.health.is_short("m", "1 of 2 processes serve it; another one waits for its turn", refused=False)
        assert ward.status() == ("degraded", "1 of 2 processes serve it; another one waits for its turn")
        assert ward.alerts() == []
        ward.health.is_short("m", "1 of 2 processes serve it; there is no room", refused=True)
        ward.run(5000)
        assert ward.status() == ("degraded", "1 of 2 processes serve it; there is no room")
        assert ward.alerts() == [("no_memory:m", True)]
        ward.counters["m"]["missing_processes"] = 0
        ward.run(1)
        assert ward.alerts()[1:] == [("no_memory:m", False)]
        assert ward.status()[0] == "healthy"
        ward.health.is_short("m", "there is no room", refused=True)
        ward.health.left("m")
        assert ward.alerts()[2:] == [("no_memory:m", True), ("no_memory:m", False)]
        ward.health.is_short("m", "there is no room", refused=True)
        assert len(ward.alerts()) == 4, "it is not loaded any more"

    def test_a_hang_is_told_with_its_sign(self, ward: Ward) -> None:
        for name in ("silent", "busy", "door"):
            ward.load(name)
        ward.silent.add("silent")
        ward.counters["busy"]["busy_seconds"] = 1e6
        ward.health.knocked("door", None)
        ward.run(ward.rules.hang_seconds + 2)
        assert dict(zip((name for name, _ in ward.ended), ward.signs, strict=True)) == {
            name: name for name in ("silent", "busy", "door")
        }

    def test_a_person_who_takes_over_closes_what_was_open(self, ward: Ward) -> None:
        ward.health.died("m", 3, gave_up=True)
        ward.health.refused("m", "does not fit")
        ward.health.dismissed("m")
        assert ward.alerts()[2:] == [("gave_up:m", False), ("no_memory:m", False)]

    def test_a_refused_model_is_an_alert_until_it_fits(self, ward: Ward) -> None:
        for _ in range(3):
            ward.health.refused("m", "m needs 900 MiB and 300 MiB are free.")
            ward.run(60)
        assert ward.alerts() == [("no_memory:m", True)]
        ward.load()
        assert ward.alerts()[1:] == [("no_memory:m", False)]

    def test_a_refusal_that_lasts_stays_one_alert_however_its_sum_changes(self, ward: Ward) -> None:
        for minute in range(20):
            ward.health.refused("m", f"m needs 900 MiB and {300 + minute} MiB are free.")
            ward.run(60)
        assert ward.alerts() == [("no_memory:m", True)]
        ward.run(600)
        assert ward.alerts()[1:] == [("no_memory:m", False)]

    def test_a_refusal_is_forgotten_when_nobody_asks_again(self, ward: Ward) -> None:
        ward.health.refused("m", "does not fit")
        ward.run(601)
        assert ward.alerts() == [("no_memory:m", True), ("no_memory:m", False)]

    def test_thrashing_is_coming_back_soon_after_evictions_again_and_again(self, ward: Ward) -> None:
        for _ in range(3):
            assert ward.alerts() == []
            ward.health.evicted("m")
            ward.run(60)
            ward.health.admitted("m")
            ward.run(1)
        assert ward.alerts() == [("thrashing:m", True)]
        ward.run(2000)
        assert ward.alerts()[1:] == [("thrashing:m", False)]

    def test_a_return_long_after_the_eviction_is_no_thrashing(self, ward: Ward) -> None:
        for _ in range(5):
            ward.health.evicted("m")
            ward.run(301)
            ward.health.admitted("m")
        ward.run(1)
        assert ward.alerts() == []

    def test_memory_near_and_past_the_budget(self, ward: Ward) -> None:
        ward.health.memory(80, 100)
        assert ward.alerts() == []
        ward.health.memory(86, 100)
        ward.health.memory(101, 100)
        assert ward.alerts() == [("memory", True), ("over_budget", True)]
        ward.health.memory(84, 100)  # within the hysteresis of "memory"
        ward.run(61)
        assert ward.alerts()[2:] == [("over_budget", False)]
        ward.health.memory(82, 100)
        ward.run(61)
        assert ward.alerts()[3:] == [("memory", False)]

    def test_without_a_budget_there_is_no_alert(self, ward: Ward) -> None:
        ward.health.memory(10**12, None)
        assert ward.alerts() == []
