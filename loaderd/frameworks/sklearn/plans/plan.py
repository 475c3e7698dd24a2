"""What a plan is, and how exactly an estimator must be what it seems before one is made for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import Pipeline


class Declined(Exception):
    """The plan does not take these items; the estimator is to be asked itself."""


class Plan(ABC):
    """Answers for a fitted estimator what one of its methods would, without what each call of that costs."""

    rtol = 1e-9
    """How far an answer may be from the estimator's: what another order of summation does. 0: not at all."""

    @abstractmethod
    def __call__(self, items: Any) -> np.ndarray:
        """The estimator's answer for a list of texts or for rows of float64; raises Declined."""

    @abstractmethod
    def trial(self) -> Any:
        """Items that go every way through the plan, the same each time."""


def is_exactly(part: Any, types: Iterable[type]) -> bool:
    """Whether it is of one of these classes, not of one derived from them, and has none of its methods replaced."""
    kind = type(part)
    return kind in types and not any(callable(getattr(kind, name, None)) for name in vars(part))


def steps_of(estimator: Any) -> list[Any]:
    """The steps of a pipeline, those that pass everything through left out; any other estimator is its only step.

    A search stands for the best that it found.
    """
    if is_exactly(estimator, (GridSearchCV, RandomizedSearchCV)) and hasattr(estimator, "best_estimator_"):
        return steps_of(estimator.best_estimator_)
    if is_exactly(estimator, (Pipeline,)):
        kept = [step for _, step in estimator.steps if step is not None and not isinstance(step, str)]
        return [inner for step in kept for inner in steps_of(step)]
    return [estimator]


def is_within(rows: np.ndarray, largest: float) -> bool:
    """Whether every value is a number of at most that magnitude. False also when only their squares' sum says no.

    One product of the whole, where np.isfinite would make an array: NaN and infinity do not get past it. Unlike dot,
    vdot does not warn of them.
    """
    return bool(np.vdot(rows, rows) <= largest * largest)
