"""Requests grow while nobody else asks, and shrink to next to nothing, with rests, when somebody does."""

from __future__ import annotations

import pytest

from modelhub.jobs.pacing import (
    FIRST_ROWS,
    MOST_ROWS,
    QUIET_AFTER_SECONDS,
    QUIET_SECONDS,
    RARE_TIME_SHARE,
    SHORT_SHARE,
    SHORT_TIME_SHARE,
    Pace,
)


def settle(pace: Pace, fixed: float, per_row: float) -> int:
    """Rows that it arrives at with a model that takes so long."""
    for _ in range(40):
        rows = pace.rows
        pace.took(rows, fixed + per_row * rows, None)
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


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_beside_slow_answers_requests_are_short_and_use_a_small_share_of_the_time() -> None:
    clock = Clock()
    pace = Pace(clock=clock)
    assert settle(pace, 0.0004, 0.00005) == MOST_ROWS
    latency = 0.010
    pace.took(pace.rows, 0.0004 + pace.rows * 0.00005, latency)
    rows = pace.rows  # the very next one is short
    assert rows > 1
    assert 0.0004 + rows * 0.00005 <= SHORT_SHARE * latency
    computed = 0.0004 + rows * 0.00005
    assert share(pace.took(rows, computed, latency), computed) == pytest.approx(SHORT_TIME_SHARE)
    assert pace.took(rows, 0.5, latency) < 0.1, "most of it was behind others: no reason to rest longer"


@pytest.mark.parametrize(("fixed", "per_row"), [(0.0004, 0.00005), (0.0, 0.010)])
def test_beside_quick_answers_requests_are_rare(fixed: float, per_row: float) -> None:
    latency = 0.0006
    pace = Pace()
    settle(pace, fixed, per_row)
    pace.took(pace.rows, fixed + per_row * pace.rows, latency)
    rows = pace.rows
    computed = fixed + per_row * rows
    assert rows == 1 or computed <= 0.003
    assert share(pace.took(rows, computed, latency), computed) == pytest.approx(RARE_TIME_SHARE, rel=0.6)


def test_the_first_answer_is_to_so_few_rows_that_others_hardly_notice_and_tells_of_them() -> None:
    pace = Pace()
    assert pace.rows == FIRST_ROWS
    assert pace.took(FIRST_ROWS, 0.0005, 0.001) > 0.0


def test_others_are_forgotten_after_a_while_and_not_at_once() -> None:
    clock = Clock()
    pace = Pace(clock=clock)
    assert pace.took(FIRST_ROWS, 0.001, 0.002) > 0.0
    clock.now = QUIET_AFTER_SECONDS / 2  # another one of the model's processes, which they did not ask
    assert pace.took(FIRST_ROWS, 0.001, None) > 0.0
    clock.now = QUIET_AFTER_SECONDS
    assert pace.took(FIRST_ROWS, 0.001, None) == 0.0


def test_beside_very_slow_answers_a_request_takes_no_more_than_while_nobody_asks() -> None:
    pace = Pace()
    settle(pace, 0.0004, 0.001)
    pace.took(pace.rows, 0.0004 + pace.rows * 0.001, 30.0)
    assert 0.0004 + pace.rows * 0.001 <= QUIET_SECONDS
