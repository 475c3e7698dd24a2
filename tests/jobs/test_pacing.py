"""Requests grow while nobody else asks, and shrink to next to nothing, with rests, when somebody does."""

from __future__ import annotations

import pytest

from modelhub.jobs.pacing import (
    MOST_ROWS,
    QUIET_AFTER_SECONDS,
    QUIET_SECONDS,
    RARE_TIME_SHARE,
    SHORT_SHARE,
    SHORT_TIME_SHARE,
    Answered,
    Others,
    Pace,
)


def settle(pace: Pace, fixed: float, per_row: float) -> int:
    """Rows that it arrives at with a model that takes so long."""
    for _ in range(40):
        rows = pace.rows
        pace.took(rows, fixed + per_row * rows)
    return pace.rows


def test_a_request_takes_the_quiet_share_of_time_at_most() -> None:
    assert settle(Pace(), 0.0004, 0.00001) == MOST_ROWS
    rows = settle(Pace(), 0.001, 0.001)
    assert 0.3 * QUIET_SECONDS <= rows * 0.001 <= QUIET_SECONDS
    assert settle(Pace(), 0.0, 0.5) == 1


def test_a_limit_is_kept() -> None:
    assert settle(Pace(most_rows=8), 0.0, 0.00001) == 8


def share(rest: float, computed: float) -> float:
    return computed / (computed + rest)


def test_beside_slow_answers_requests_are_short_and_use_a_small_share_of_the_time() -> None:
    latency: float | None = None
    pace = Pace(others=lambda: latency)
    assert settle(pace, 0.0004, 0.00005) == MOST_ROWS
    latency = 0.010
    rows = pace.rows  # the very next one is short
    assert rows > 1
    assert 0.0004 + rows * 0.00005 <= SHORT_SHARE * latency
    computed = 0.0004 + rows * 0.00005
    assert share(pace.took(rows, computed), computed) == pytest.approx(SHORT_TIME_SHARE)
    assert pace.took(rows, 0.5) < 0.1, "most of it was behind others: no reason to rest longer"
    latency = None
    assert pace.took(rows, computed) == 0.0


@pytest.mark.parametrize(("fixed", "per_row"), [(0.0004, 0.00005), (0.0, 0.010)])
def test_beside_quick_answers_requests_are_rare(fixed: float, per_row: float) -> None:
    latency: float | None = None
    pace = Pace(others=lambda: latency)
    settle(pace, fixed, per_row)
    latency = 0.0006
    rows = pace.rows
    computed = fixed + per_row * rows
    assert rows == 1 or computed <= 0.003
    assert share(pace.took(rows, computed), computed) == pytest.approx(RARE_TIME_SHARE, rel=0.6)


class Counter:
    """A model's process: its count is what loaderd saw a moment ago."""

    def __init__(self) -> None:
        self.now, self.requests, self.seconds, self.last_at = 0.0, 100, 1.0, 0.0

    def __call__(self) -> Answered:
        return Answered(self.requests, self.seconds, self.last_at)

    def answered(self, seconds: float = 0.001) -> None:
        self.requests += 1
        self.seconds += seconds
        self.last_at = self.now


def test_ones_own_requests_are_nobody_else() -> None:
    counter = Counter()
    others = Others(counter, clock=lambda: counter.now, wall=lambda: counter.now)
    assert others.seconds() is None
    for step in range(500):
        counter.now = step * 0.1
        if step % 10:  # the count lags behind by up to a second
            others.asked(0.001)
        else:
            counter.requests, counter.last_at = 100 + sum(1 for one in range(step) if one % 10), counter.now - 0.1
        assert others.seconds() is None, step


def test_one_foreign_request_is_seen_and_forgotten_after_a_while() -> None:
    counter = Counter()
    others = Others(counter, clock=lambda: counter.now, wall=lambda: counter.now)
    others.seconds()
    for _ in range(20):
        counter.now += 0.5
        others.asked(0.001)
        counter.answered()
    counter.now += 1
    assert others.seconds() is None
    counter.answered(0.004)
    counter.now += 1
    assert others.seconds() == pytest.approx(0.004)
    counter.now += QUIET_AFTER_SECONDS + 1
    assert others.seconds() is None


def test_another_process_begins_to_count_anew() -> None:
    counter = Counter()
    others = Others(counter, clock=lambda: counter.now, wall=lambda: counter.now)
    others.seconds()
    counter.now, counter.requests = 5.0, 0
    assert others.seconds() is None
    counter.now = 10.0
    counter.answered()
    counter.now = 12.0
    assert others.seconds() is not None
