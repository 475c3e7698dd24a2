"""Which of two versions is the higher one."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaderd.version_order import version_key


@pytest.mark.parametrize(
    "in_order",
    [
        ["1", "2", "10"],
        ["1.9", "1.10", "2"],
        ["1.0.0", "1.0.1", "1.1.0"],
        ["1.2.0-alpha", "1.2.0-alpha.1", "1.2.0-beta", "1.2.0-beta.2", "1.2.0-beta.11", "1.2.0-rc.1", "1.2.0"],
        ["1.2.0-1", "1.2.0-beta", "1.2.0"],
        ["1.2.0rc1", "1.2.0rc2", "1.2.0"],
        ["1.2.0", "1.2.0+build.1", "1.2.0+build.2", "1.2.1"],
        ["latest", "0.1"],
        ["alpha", "beta", "1"],
        ["2023.9", "2023.10", "2024.1"],
        ["1", "1.0", "1.0.0", "1.0.1"],
    ],
    ids=" ".join,
)
def test_versions_are_ordered(in_order: list[str]) -> None:
    shuffled = list(in_order)
    random.Random(7).shuffle(shuffled)
    assert sorted(shuffled, key=version_key) == in_order


@given(st.lists(st.text(alphabet="0123456789abz._+-", min_size=1, max_size=8), min_size=2, max_size=6))
def test_every_text_has_its_place(versions: list[str]) -> None:
    in_order = sorted(versions, key=version_key)
    assert all(version_key(low) <= version_key(high) for low, high in itertools.pairwise(in_order))


@given(st.lists(st.integers(0, 99), min_size=1, max_size=4), st.lists(st.integers(0, 99), min_size=1, max_size=4))
def test_numbers_are_compared_as_numbers_part_by_part(one: list[int], other: list[int]) -> None:
    length = max(len(one), len(other))
    filled = [numbers + [0] * (length - len(numbers)) for numbers in (one, other)]
    if filled[0] != filled[1]:
        keys = [version_key(".".join(map(str, numbers))) for numbers in (one, other)]
        assert (keys[0] < keys[1]) == (filled[0] < filled[1])
