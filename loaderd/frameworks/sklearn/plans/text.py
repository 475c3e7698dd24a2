"""Text pipelines: vectorizers, perhaps with tf-idf, and a linear model, as weighted sums over the terms found."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.pipeline import FeatureUnion

from loaderd.frameworks.sklearn.plans.bags import Bag, Weighed, bag_of
from loaderd.frameworks.sklearn.plans.heads import Head, head_of
from loaderd.frameworks.sklearn.plans.plan import Plan, is_exactly, steps_of

MAX_COPY_BYTES = 64 << 20  # of the coefficients, turned so that one term's lie side by side
CHUNK_ITEMS = 256  # of a large batch; keeps what is computed on the way small
FEW_ANSWERS = 32  # up to here one sum over all texts is faster than one product a text

TRIALS = (
    "",
    " \t\n",
    "a I 1 _ __ x1",
    "Grüße, ÉCOLE naïve ŒUVRE İstanbul ẞ ﬁn Ǆ e\u0301 \u0644\u063a\u0629 日本語 \U0001f600",
    "naïve\x00co-operation\x1cover\u00a0and_out 3.14 don't? e-mail@example.org!",
)


class TextPlan(Plan):
    """The texts of a batch go through two steps: find and weigh the terms, sum up their coefficients."""

    def __init__(self, bags: Sequence[Bag], head: Head) -> None:
        self._bags = bags
        self._head = head
        self._answers = len(head.weights)
        self._turned = None  # [features, answers]
        if self._answers == 1 or head.weights.nbytes <= MAX_COPY_BYTES:
            self._turned = np.ascontiguousarray(head.weights.T)
        if any(bag.dtype == np.float32 for bag in bags):
            self.rtol = 1e-5  # the estimator adds up some hundred float32

    def __call__(self, items: Sequence[str]) -> np.ndarray:
        if len(items) <= CHUNK_ITEMS:
            return self._answer(items)
        starts = range(0, len(items), CHUNK_ITEMS)
        return np.concatenate([self._answer(items[start : start + CHUNK_ITEMS]) for start in starts])

    def _answer(self, texts: Sequence[str]) -> np.ndarray:
        scores = None
        for bag in self._bags:
            weighed = bag.weighed(texts)
            if weighed is not None:
                sums = self._spread(weighed, self._sums(weighed), len(texts))
                scores = sums if scores is None else scores + sums
        if scores is None:
            scores = np.zeros((len(texts), self._answers))
        scores += self._head.intercept
        return self._head.link(scores)

    def _sums(self, weighed: Weighed) -> np.ndarray:
        """Per text that holds a term, the sum of values times coefficients."""
        columns, values, bounds = weighed.columns, weighed.values, weighed.bounds
        turned = self._turned
        if turned is not None and len(bounds) == 1:
            return values[None] @ turned.take(columns, axis=0)
        if turned is not None and self._answers <= FEW_ANSWERS:
            weighted = turned.take(columns, axis=0)
            if weighted.dtype == values.dtype:
                weighted *= values[:, None]
            else:
                weighted = weighted * values[:, None]
            return np.add.reduceat(weighted, bounds)
        sums = np.empty((len(bounds), self._answers))
        for row, (start, stop) in enumerate(zip(bounds, [*bounds[1:], len(columns)], strict=True)):
            if turned is not None:
                sums[row] = values[start:stop] @ turned.take(columns[start:stop], axis=0)
            else:
                sums[row] = self._head.weights.take(columns[start:stop], axis=1) @ values[start:stop]
        return sums

    def _spread(self, weighed: Weighed, sums: np.ndarray, texts: int) -> np.ndarray:
        """The sums divided by the norms, with 0 for texts that hold no term."""
        if weighed.norms is not None:
            sums /= weighed.norms[:, None]
        if len(sums) == texts:
            return sums
        spread = np.zeros((texts, self._answers))
        assert weighed.owners is not None
        spread[weighed.owners] = sums
        return spread

    def trial(self) -> list[str]:
        draw = random.Random(7)  # noqa: S311 - the same each time is what is wanted
        texts = [*TRIALS]
        terms = [term for bag in self._bags for term in bag.known]
        for size in (1, 2, 3, 8, 40, 100):
            words = [draw.choice(terms) for _ in range(size)]
            texts += [" ".join(words), ", ".join(words).title(), " ".join([*words, "qqzzx", *words[::-1]])]
        return [*texts, " ".join([texts[-1][:40]] * 9)]


def text_plan(estimator: Any, method: str) -> TextPlan | None:
    """The plan for a pipeline of text; None when a step of it is not known to the letter."""
    *before, last = steps_of(estimator)
    head = head_of(last, method)
    if head is None or not before:
        return None
    bags = _bags_of(before)
    if bags is None or sum(bag.width for bag in bags) != head.weights.shape[1]:
        return None
    return TextPlan(bags, head)


def _bags_of(steps: list[Any]) -> list[Bag] | None:
    """One bag for each transformer of a union, or the one that the steps make."""
    first = steps[0]
    if not is_exactly(first, (FeatureUnion,)):
        bag = bag_of(steps, 0)
        return None if bag is None else [bag]
    if len(steps) > 1 or getattr(first, "_sklearn_output_config", None):
        return None
    bags: list[Bag] = []
    for name, transformer in first.transformer_list:
        if transformer == "drop":
            continue
        factor = (first.transformer_weights or {}).get(name)
        bag = bag_of(steps_of(transformer), sum(bag.width for bag in bags), 1.0 if factor is None else factor)
        if bag is None:
            return None
        bags.append(bag)
    return bags
