"""Linear models of rows, after scalers or alone: one product."""

from __future__ import annotations

from typing import Any

import numpy as np

from loaderd.frameworks.sklearn.plans.heads import Head, head_of
from loaderd.frameworks.sklearn.plans.plan import Plan, steps_of
from loaderd.frameworks.sklearn.plans.scaling import Scaling, scaling_of

LARGEST = 1e150  # the square of a larger value is no float64
TRIAL_ROWS = 32


class LinearPlan(Plan):
    def __init__(self, scaling: Scaling, head: Head) -> None:
        self._scaling = scaling
        self._head = head
        if head.weights.dtype == np.float32:
            self.rtol = 1e-6

    def __call__(self, items: np.ndarray) -> np.ndarray:
        return self._head.link(self._scaling(items) @ self._head.weights.T + self._head.intercept)

    def trial(self) -> np.ndarray:
        draw = np.random.default_rng(7)
        sizes = 10.0 ** draw.integers(-3, 4, size=(TRIAL_ROWS, 1))
        rows = draw.normal(size=(TRIAL_ROWS, self._head.weights.shape[1])) * sizes
        rows[0] = 0
        return rows


def linear_plan(estimator: Any, method: str) -> LinearPlan | None:
    """The plan for a linear model of rows; None when a step is not known to the letter."""
    *before, last = steps_of(estimator)
    head = head_of(last, method)
    if head is None:
        return None
    scaling = scaling_of(before, head.weights.shape[1], LARGEST)
    return None if scaling is None else LinearPlan(scaling, head)
