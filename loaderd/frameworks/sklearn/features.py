"""What a fitted estimator takes: text, numbers, or categories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sklearn.compose import ColumnTransformer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.utils import get_tags

from loaderd.errors import LoadFailed
from loaderd.frameworks.base import Artifact, TensorSpec


def input_of(estimator: Any, artifact: Artifact) -> TensorSpec:
    """Text where a text vectorizer comes first, else rows named "features".

    Rows are FP64, or BYTES where a column is text or a category; numbers beside it are sent as text too.
    Raises LoadFailed when the number of features cannot be told.
    """
    first = list(_first_steps(estimator))
    if any(_takes_text(step) for step in first):
        return TensorSpec("text", "BYTES", (-1,))
    count = getattr(estimator, "n_features_in_", None)  # a pipeline that begins with "passthrough" has none
    count = count or getattr(first[0], "n_features_in_", None) or _sample_width(artifact)
    if count is None:
        raise LoadFailed(
            f"{artifact.model_id} does not tell how many features it takes; "
            "put one row of them as sample_input into its metadata.json.",
            model_id=artifact.model_id,
        )
    datatype = "BYTES" if any(_takes_text_columns(step) for step in first) else "FP64"
    return TensorSpec("features", datatype, (-1, int(count)))


def _first_steps(estimator: Any) -> Iterator[Any]:
    """Every estimator that sees the input itself."""
    if hasattr(estimator, "best_estimator_"):
        yield from _first_steps(estimator.best_estimator_)
    elif isinstance(estimator, Pipeline):
        yield from _first_steps(next(step for _, step in estimator.steps if step not in (None, "passthrough")))
    elif isinstance(estimator, FeatureUnion):
        for _, step in estimator.transformer_list:
            yield from _first_steps(step)
    else:
        yield estimator


def _takes_text(step: Any) -> bool:
    if not hasattr(step, "__sklearn_tags__"):  # "drop", "passthrough", an estimator of another house
        return False
    wanted = get_tags(step).input_tags
    return bool(wanted.string and not wanted.two_d_array)


def _takes_text_columns(step: Any) -> bool:
    if isinstance(step, ColumnTransformer):
        inner = [first for _, part, _ in step.transformers_ for first in _first_steps(part)]
        return any(_takes_text(first) or _takes_text_columns(first) for first in inner)
    categories = getattr(step, "categories_", None)
    return isinstance(categories, list) and any(values.dtype.kind in "OUS" for values in categories)


def _sample_width(artifact: Artifact) -> int | None:
    declared = artifact.metadata.get("sample_input")
    rows = declared.get("inputs") if isinstance(declared, Mapping) else declared
    return len(rows[0]) if isinstance(rows, list) and rows and isinstance(rows[0], list) else None
