"""Serves an estimator as a model process would, beside what the estimator itself answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from loaderd.frameworks.base import Artifact
from loaderd.frameworks.sklearn.estimator import EstimatorModel, model_for


def served(estimator: Any, **options: Any) -> EstimatorModel:
    return model_for(estimator, Artifact("m-v1", Path("/nowhere"), "pickle", (), approved=True, **options))


def planned(estimator: Any, **options: Any) -> EstimatorModel:
    """Asserts that there is a plan for it."""
    model = served(estimator, **options)
    assert model.plan is not None, "it has no plan"
    return model


def answers(model: EstimatorModel, items: Any) -> dict[str, np.ndarray]:
    dtype = object if isinstance(items[0], str) else np.float64
    return model.predict({model.signature.inputs[0].name: np.array(items, dtype=dtype)})
