"""Bulk work is told how those are answered who wait, while there are such."""

from __future__ import annotations

import pytest

from loaderd.worker.interest import RECENT_SECONDS, Interest


def test_nobody_has_asked_before_the_first_answer_and_some_time_after_the_last() -> None:
    interest = Interest()
    assert interest.latency_seconds(0.0) is None
    interest.answered(0.004, now=10.0)
    assert interest.latency_seconds(10.0) == pytest.approx(0.004)
    assert interest.latency_seconds(10.0 + RECENT_SECONDS) is None


def test_the_newest_count_most_and_those_of_long_ago_not_at_all() -> None:
    interest = Interest()
    for step in range(200):
        interest.answered(0.010, now=step * 0.01)
    for step in range(200):
        interest.answered(0.002, now=2.0 + step * 0.01)
    assert interest.latency_seconds(4.0) == pytest.approx(0.002, rel=0.01)
    later = 4.0 + RECENT_SECONDS
    interest.answered(0.5, now=later)
    assert interest.latency_seconds(later) == pytest.approx(0.5)
