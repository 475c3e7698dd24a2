"""Which texts go through the network together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loaderd.frameworks.transformers import micro_batches

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=80)


@given(LENGTHS)
def test_packed_groups_hold_each_text_once_and_keep_to_the_budget(lengths: list[int]) -> None:
    groups = micro_batches.packed(lengths, 256)
    assert sorted(item for group in groups for item in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or sum(lengths[item] for item in group) <= 256
        assert [lengths[item] for item in group] == sorted((lengths[item] for item in group), reverse=True)


@given(LENGTHS)
def test_padded_groups_hold_each_text_once_and_little_padding(lengths: list[int]) -> None:
    groups = micro_batches.padded(lengths, 1024)
    assert sorted(item for group in groups for item in group) == list(range(len(lengths)))
    for group in groups:
        size, real = len(group) * lengths[group[0]], sum(lengths[item] for item in group)
        assert len(group) == 1 or size <= 1024
        assert size <= 256 or size - real <= micro_batches.MAX_PADDING * size


def test_packed_groups_are_filled_from_both_ends() -> None:
    assert micro_batches.packed([100, 20, 200, 30, 40, 16], 256) == [[2, 1, 5], [0, 4, 3]]


def test_texts_of_one_length_share_a_padded_group() -> None:
    assert micro_batches.padded([7] * 12, 1024) == [list(range(12))]
