"""Latency histograms that can be added up: fixed buckets, so that any two of them merge without loss.

Buckets grow by the fourth root of two from 50 microseconds on (as HdrHistogram and Prometheus' native histograms
do, an exponential scale), which bounds the error of a quantile to 9 %. The last bucket takes all that is longer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

FIRST_SECONDS = 50e-6
BUCKETS_PER_DOUBLING = 4
BUCKETS = 96  # the last finite bound is 50 us * 2**(94/4): 594 s

BOUNDS_SECONDS: tuple[float, ...] = tuple(
    FIRST_SECONDS * 2 ** (index / BUCKETS_PER_DOUBLING) for index in range(BUCKETS - 1)
)
"""Upper bound of each bucket but the last, inclusive."""

_SCALE = BUCKETS_PER_DOUBLING / math.log(2)
_OFFSET = math.log(FIRST_SECONDS)


def bucket_of(seconds: float) -> int:
    """The bucket that a latency falls into."""
    if seconds <= FIRST_SECONDS:
        return 0
    index = math.ceil((math.log(seconds) - _OFFSET) * _SCALE - 1e-9)
    return min(index, BUCKETS - 1)


def empty() -> list[int]:
    return [0] * BUCKETS


def merged(histograms: Iterable[Sequence[int]]) -> list[int]:
    """The sum of all; shorter ones (an empty list is the empty histogram) count as filled up with zeros."""
    total = empty()
    for histogram in histograms:
        for index, count in enumerate(histogram):
            total[index] += count
    return total


def subtracted(now: Sequence[int], before: Sequence[int]) -> list[int]:
    """What was added between two states of one cumulative histogram."""
    return [count - (before[index] if index < len(before) else 0) for index, count in enumerate(now)]


def quantile(histogram: Sequence[int], share: float) -> float | None:
    """The latency in seconds below which `share` (0.0 to 1.0) of the requests lie, or None without any.

    Interpolated by the logarithm within its bucket; the last bucket gives its lower bound.
    """
    total = sum(histogram)
    if not total:
        return None
    rank = share * total
    passed = 0
    for index, count in enumerate(histogram):
        if count and passed + count >= rank:
            if index >= BUCKETS - 1:
                return BOUNDS_SECONDS[-1]
            upper = BOUNDS_SECONDS[index]
            lower = upper / 2 ** (1 / BUCKETS_PER_DOUBLING)
            within = max(0.0, (rank - passed) / count)
            return lower * (upper / lower) ** within
        passed += count
    return BOUNDS_SECONDS[-1]
