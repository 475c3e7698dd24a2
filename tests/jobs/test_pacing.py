"""Requests grow while nobody else asks, and shrink to next to nothing, with rests, when somebody does."""

from __future__ import annotations

from modelhub.jobs.pacing import BUSY_SECONDS, BUSY_SHARE, MOST_ROWS, QUIET_AFTER_SECONDS, QUIET_SECONDS, Others, Pace


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


def test_others_make_requests_short_and_leave_room_between_them() -> None:
    is_busy = False
    pace = Pace(is_busy=lambda: is_busy)
    assert settle(pace, 0.0004, 0.00005) == MOST_ROWS
    is_busy = True
    assert pace.rows * 0.00005 <= BUSY_SECONDS  # the very next one is short
    rest = pace.took(20, 0.001)
    assert abs(0.001 / (0.001 + rest) - BUSY_SHARE) < 1e-9
    waited = pace.took(20, 0.5)  # most of it behind others: that is no reason to rest longer
    assert waited < 3 * rest
    assert pace.rows > 10
    is_busy = False
    assert pace.took(20, 0.002) == 0.0


class Counter:
    """A model's process: its count is what loaderd saw a moment ago."""

    def __init__(self) -> None:
        self.now, self.requests, self.last_at = 0.0, 100, 0.0

    def __call__(self) -> tuple[int, float]:
        return self.requests, self.last_at

    def answered(self, count: int = 1) -> None:
        self.requests += count
        self.last_at = self.now


def test_ones_own_requests_are_nobody_else() -> None:
    counter = Counter()
    others = Others(counter, clock=lambda: counter.now, wall=lambda: counter.now)
    assert not others.are_there()
    for step in range(500):
        counter.now = step * 0.1
        if step % 10:  # the count lags behind by up to a second
            others.asked()
        else:
            counter.requests, counter.last_at = 100 + sum(1 for one in range(step) if one % 10), counter.now - 0.1
        assert not others.are_there(), step


def test_one_foreign_request_is_seen_and_forgotten_after_a_while() -> None:
    counter = Counter()
    others = Others(counter, clock=lambda: counter.now, wall=lambda: counter.now)
    others.are_there()
    for _ in range(20):
        counter.now += 0.5
        others.asked()
        counter.answered()
    counter.now += 1
    assert not others.are_there()
    counter.answered()
    counter.now += 1
    assert others.are_there()
    counter.now += QUIET_AFTER_SECONDS + 1
    assert not others.are_there()


def test_another_process_begins_to_count_anew() -> None:
    counter = Counter()
    others = Others(counter, clock=lambda: counter.now, wall=lambda: counter.now)
    others.are_there()
    counter.now, counter.requests = 5.0, 0
    assert not others.are_there()
    counter.now = 10.0
    counter.answered()
    counter.now = 12.0
    assert others.are_there()
