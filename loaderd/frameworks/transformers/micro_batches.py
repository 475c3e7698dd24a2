"""Which texts of a batch go through the network together. Pure: knows lengths only."""

from __future__ import annotations

from collections.abc import Sequence

MAX_PADDING = 0.1  # share of a padded micro-batch


def packed(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Groups of at most `budget` tokens, as full as may be, each with its longest text first.

    For a network that needs no padding. A text that is longer than the budget is alone.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    groups = []
    first, last = 0, len(order) - 1
    while first <= last:
        group, room = [order[first]], budget - lengths[order[first]]
        first += 1
        while first <= last and lengths[order[first]] <= room:
            room -= lengths[order[first]]
            group.append(order[first])
            first += 1
        while first <= last and lengths[order[last]] <= room:
            room -= lengths[order[last]]
            group.append(order[last])
            last -= 1
        groups.append(sorted(group, key=lengths.__getitem__, reverse=True))
    return groups


def padded(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Groups of like length, longest first: padded to its longest, none has more than `budget` tokens, and beyond what
    a small group saves in calls (a quarter of the budget) no more than MAX_PADDING of them are padding."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    groups: list[list[int]] = []
    longest = real = 0
    for item in order:
        size = (len(groups[-1]) + 1) * longest if groups else 0
        padding = size - real - lengths[item]
        if not groups or size > budget or (size > budget // 4 and padding > MAX_PADDING * size):
            groups.append([])
            longest, real = lengths[item], 0
        groups[-1].append(item)
        real += lengths[item]
    return groups
