"""The cheapest set of things that together give at least so much of each of several amounts."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from operator import le

MAX_NODES = 512  # a few milliseconds, and all nodes that nine candidates can have
MAX_RIVALS = 64  # that one candidate is compared with: those behind it in the order, where its equals are


def cheapest_cover(costs: Sequence[float], gives: Sequence[Sequence[int]], lacking: Sequence[int]) -> list[int] | None:
    """Indices of the cheapest set whose gives reach `lacking` in every column, or None when all together do not.

    costs are positive. None of the set is superfluous. Exact for up to nine candidates, and beyond that wherever a
    search of MAX_NODES steps comes to its end; else it is the best that it found, and never worse than a greedy choice.
    """
    columns = [column for column, short in enumerate(lacking) if short > 0]
    # More than what lacks is worth no more: cut off, it makes the search's bound tighter.
    needs = [lacking[column] for column in columns]
    useful = [[min(max(0, give[column]), lacking[column]) for column in columns] for give in gives]
    if any(sum(give[at] for give in useful) < need for at, need in enumerate(needs)):
        return None
    best = _pruned(_greedy(costs, useful, needs), costs, useful, needs)
    found = _Search(costs, useful, needs, best).run()
    return sorted(_pruned(found, costs, useful, needs))


def _greedy(costs: Sequence[float], gives: Sequence[Sequence[int]], needs: Sequence[int]) -> list[int]:
    """One after the other in the order of the share of the need that they give for their cost, while they help."""
    left, chosen = list(needs), []
    shares = [sum(give / need for give, need in zip(row, needs, strict=True)) for row in gives]
    for index in sorted(range(len(costs)), key=lambda index: -shares[index] / costs[index]):
        if not any(left):
            break
        if any(map(min, gives[index], left)):
            chosen.append(index)
            left = [max(0, short - give) for short, give in zip(left, gives[index], strict=True)]
    return chosen


def _pruned(
    chosen: Iterable[int], costs: Sequence[float], gives: Sequence[Sequence[int]], needs: Sequence[int]
) -> list[int]:
    """Without those that the others make superfluous, the dearest first."""
    kept = sorted(chosen, key=lambda index: -costs[index])
    spare = [sum(gives[index][at] for index in kept) - need for at, need in enumerate(needs)]
    for index in list(kept):
        if all(map(le, gives[index], spare)):
            kept.remove(index)
            spare = [over - give for over, give in zip(spare, gives[index], strict=True)]
    return kept


class _Search:
    """Branch and bound: takes each candidate or leaves it, and turns back where it cannot get cheaper than the best.

    Candidates come in the order of what they give for their cost, all columns taken together as shares of the need.
    Two lower bounds of what the rest costs: that sum filled up in this order, the last one in part (the relaxation
    that Dantzig gave for the knapsack); and for each column alone the best price ahead. Who leaves a candidate leaves
    those that it dominates too (they cost no less and give no more): equal models are not tried in every order.
    """

    def __init__(
        self,
        costs: Sequence[float],
        gives: Sequence[Sequence[int]],
        needs: Sequence[int],
        best: list[int],
    ) -> None:
        self.best = best
        self.best_cost = sum(costs[index] for index in best)
        shares = [sum(give / need for give, need in zip(row, needs, strict=True)) for row in gives]
        self._order = sorted(range(len(costs)), key=lambda index: (-shares[index] / costs[index], costs[index]))
        self._costs = [costs[index] for index in self._order]
        self._gives = [tuple(gives[index]) for index in self._order]
        self._needs = tuple(needs)
        self._nodes_left = MAX_NODES
        self._share_before = list(accumulate((shares[index] for index in self._order), initial=0.0))
        self._cost_before = list(accumulate(self._costs, initial=0.0))
        count, width = len(costs), len(needs)
        self._ahead = [[0] * width for _ in range(count + 1)]
        self._price = [[float("inf")] * width for _ in range(count + 1)]
        for at in range(count - 1, -1, -1):
            for column, give in enumerate(self._gives[at]):
                self._ahead[at][column] = self._ahead[at + 1][column] + give
                price = self._costs[at] / give if give else float("inf")
                self._price[at][column] = min(self._price[at + 1][column], price)
        self._dominated: dict[int, int] = {}

    def run(self) -> list[int]:
        self._visit(0, 0.0, self._needs, 0, ())
        return self.best

    def _dominated_by(self, at: int) -> int:
        """A bit for each candidate shortly behind this one that costs no less and gives no more."""
        if at not in self._dominated:
            cost, mine, bits = self._costs[at], self._gives[at], 0
            for other in range(at + 1, min(at + 1 + MAX_RIVALS, len(self._costs))):
                if self._costs[other] >= cost and all(map(le, self._gives[other], mine)):
                    bits |= 1 << other
            self._dominated[at] = bits
        return self._dominated[at]

    def _cost_ahead(self, at: int, left: tuple[int, ...]) -> float:
        """A lower bound of what fills up `left` from the candidates from `at` on; infinite when they cannot."""
        ahead, price, share, bound = self._ahead[at], self._price[at], 0.0, 0.0
        for column, short in enumerate(left):
            if short:
                if ahead[column] < short:
                    return float("inf")
                share += short / self._needs[column]
                bound = max(bound, short * price[column])
        before = self._share_before
        full = bisect_left(before, before[at] + share, lo=at) - 1  # the last one taken, in part
        if at <= full < len(self._costs):
            part = (before[at] + share - before[full]) / (before[full + 1] - before[full])
            bound = max(bound, self._cost_before[full] - self._cost_before[at] + part * self._costs[full])
        return bound

    def _visit(self, at: int, cost: float, left: tuple[int, ...], left_out: int, chosen: tuple[int, ...]) -> None:
        if not any(left):
            if cost < self.best_cost:
                self.best, self.best_cost = [self._order[index] for index in chosen], cost
            return
        while at < len(self._order) and self._nodes_left != 0:
            if not left_out >> at & 1:
                self._nodes_left -= 1
                if cost + self._cost_ahead(at, left) >= self.best_cost:
                    return
                mine = self._gives[at]
                if any(give and short for give, short in zip(mine, left, strict=True)):
                    rest = tuple(max(0, short - give) for short, give in zip(left, mine, strict=True))
                    self._visit(at + 1, cost + self._costs[at], rest, left_out, (*chosen, at))
                left_out |= self._dominated_by(at)
            at += 1
