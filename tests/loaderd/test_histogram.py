"""Latency histograms: they add up without loss, and a quantile is within 9 % of the truth."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaderd import histogram
from loaderd.histogram import BOUNDS_SECONDS, BUCKETS, FIRST_SECONDS

LATENCIES = st.floats(1e-6, 500.0)
GROWTH = 2 ** (1 / histogram.BUCKETS_PER_DOUBLING)
ERROR = math.sqrt(GROWTH) - 1  # of a value against the middle of its bucket


def of(latencies: list[float]) -> list[int]:
    counts = histogram.empty()
    for seconds in latencies:
        counts[histogram.bucket_of(seconds)] += 1
    return counts


def test_buckets_grow_by_a_constant_and_reach_ten_minutes() -> None:
    assert len(BOUNDS_SECONDS) == BUCKETS - 1
    assert BOUNDS_SECONDS[0] == FIRST_SECONDS
    assert 590 < BOUNDS_SECONDS[-1] < 600
    for lower, upper in itertools.pairwise(BOUNDS_SECONDS):
        assert upper / lower == pytest.approx(GROWTH)


def test_a_bound_belongs_to_its_own_bucket_and_what_is_above_to_the_next() -> None:
    for index, bound in enumerate(BOUNDS_SECONDS):
        assert histogram.bucket_of(bound) == index
        assert histogram.bucket_of(bound * 1.0001) == index + 1


@pytest.mark.parametrize(("seconds", "bucket"), [(0.0, 0), (-1.0, 0), (1e-9, 0), (1e6, BUCKETS - 1)])
def test_what_is_out_of_range_falls_into_the_first_or_last(seconds: float, bucket: int) -> None:
    assert histogram.bucket_of(seconds) == bucket


@given(st.lists(st.lists(LATENCIES, max_size=30), max_size=5))
def test_merged_histograms_are_that_of_all_values(parts: list[list[float]]) -> None:
    together = [seconds for part in parts for seconds in part]
    assert histogram.merged(of(part) for part in parts) == of(together)


def test_a_short_histogram_counts_as_filled_up_with_zeros() -> None:
    assert histogram.merged([[], [1, 2], of([FIRST_SECONDS])]) == [2, 2, *[0] * (BUCKETS - 2)]


@given(st.lists(LATENCIES, max_size=30), st.lists(LATENCIES, max_size=30))
def test_subtracted_is_what_was_added_since(before: list[float], more: list[float]) -> None:
    assert histogram.subtracted(of(before + more), of(before)) == of(more)
    assert histogram.subtracted(of(more), []) == of(more)


@given(st.lists(st.floats(FIRST_SECONDS, 500.0), min_size=1, max_size=200), st.floats(0.01, 1.0))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(latencies: list[float], share: float) -> None:
    """Between any two values that the share cannot tell apart; the bucket bounds the error by the fourth root of 2."""
    found = histogram.quantile(of(latencies), share)
    assert found is not None
    true = sorted(latencies)[max(0, math.ceil(share * len(latencies) - 1e-9) - 1)]
    assert true / GROWTH / (1 + 1e-9) <= found <= true * GROWTH * (1 + 1e-9)


def test_quantiles_of_many_values_are_within_nine_percent() -> None:
    latencies = [0.001 * 1.002**step for step in range(4000)]
    counts = of(latencies)
    for share in (0.5, 0.9, 0.95, 0.99):
        found = histogram.quantile(counts, share)
        assert found == pytest.approx(latencies[int(share * len(latencies))], rel=ERROR)


def test_equal_latencies_have_equal_quantiles_within_a_bucket() -> None:
    counts = of([0.02] * 50)
    found = [histogram.quantile(counts, share) for share in (0.01, 0.5, 0.99)]
    assert found == sorted(found)
    assert all(value == pytest.approx(0.02, rel=GROWTH - 1) for value in found)


def test_nothing_counted_has_no_quantile() -> None:
    assert histogram.quantile([], 0.5) is None
    assert histogram.quantile(histogram.empty(), 0.99) is None


def test_the_longest_are_told_by_the_last_bound() -> None:
    assert histogram.quantile(of([1e5]), 0.5) == BOUNDS_SECONDS[-1]
