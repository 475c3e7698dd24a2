"""Steps before a model of rows that change each feature by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

from loaderd.frameworks.sklearn.plans.plan import Declined, is_exactly, is_within

Change = Callable[[np.ndarray], Any]
"""Changes rows in place."""


class Scaling:
    """Takes rows as the last step of a pipeline would get them. Costs nothing: it uses the steps' own arrays."""

    def __init__(self, changes: list[Change], features: int, largest: float) -> None:
        self._changes = changes
        self._features = features
        self._largest = largest

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """The rows, or changed ones; raises Declined when a value before or after is no number, or beyond `largest`."""
        if rows.ndim != 2 or rows.shape[1] != self._features or not is_within(rows, self._largest):
            raise Declined
        if not self._changes:
            return rows
        rows = np.array(rows, dtype=np.float64)
        for change in self._changes:
            change(rows)
        if not is_within(rows, self._largest):
            raise Declined
        return rows


def scaling_of(steps: list[Any], features: int, largest: float) -> Scaling | None:
    """What these steps do to rows; None when one of them is not known to the letter."""
    changes: list[Change] = []
    for step in steps:
        found = _changes_of(step)
        if found is None or getattr(step, "_sklearn_output_config", None):
            return None
        changes += found
    return Scaling(changes, features, largest)


def _changes_of(step: Any) -> list[Change] | None:
    if is_exactly(step, (StandardScaler,)):
        centre = [_minus(step.mean_)] if step.with_mean else []
        return centre + ([_over(step.scale_)] if step.with_std and step.scale_ is not None else [])
    if is_exactly(step, (RobustScaler,)):
        centre = [_minus(step.center_)] if step.with_centering else []
        return centre + ([_over(step.scale_)] if step.with_scaling else [])
    if is_exactly(step, (MinMaxScaler,)):
        clipped = [_clip(*step.feature_range)] if step.clip else []
        return [_times(step.scale_), _plus(step.min_), *clipped]
    if is_exactly(step, (MaxAbsScaler,)) and not getattr(step, "clip", False):
        return [_over(step.scale_)]
    return None


def _minus(by: np.ndarray) -> Change:
    return lambda rows: np.subtract(rows, by, out=rows)


def _plus(by: np.ndarray) -> Change:
    return lambda rows: np.add(rows, by, out=rows)


def _times(by: np.ndarray) -> Change:
    return lambda rows: np.multiply(rows, by, out=rows)


def _over(by: np.ndarray) -> Change:
    return lambda rows: np.divide(rows, by, out=rows)


def _clip(low: float, high: float) -> Change:
    return lambda rows: np.clip(rows, low, high, out=rows)
