"""Class names, and what a classifier answers with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from loaderd.errors import LoadFailed
from loaderd.frameworks.base import Artifact, TensorSpec

if TYPE_CHECKING:
    import numpy as np

SEVERAL_THRESHOLD = 0.5  # a label of a multi-label model applies from this probability on


def declared_labels(artifact: Artifact, count: int | None = None) -> tuple[str, ...] | None:
    """The names under "labels" in metadata.json or config.json (a list, or an object by class number).

    None when neither has any. count: how many classes the model has; LoadFailed when the names are not as many.
    """
    found = artifact.metadata.get("labels") or artifact.config.get("labels")
    if not found:
        return None
    labels = tuple(str(label) for label in _in_order(found))
    if count is not None and len(labels) != count:
        raise LoadFailed(
            f"{artifact.model_id} has {count} classes and its metadata names {len(labels)} labels; make them agree.",
            model_id=artifact.model_id,
        )
    return labels


def _in_order(labels: Any) -> Sequence[Any]:
    if isinstance(labels, Mapping):
        return [labels[key] for key in sorted(labels, key=int)]
    return list(labels)


def classifier_outputs(labels: Sequence[str], several: bool = False) -> tuple[TensorSpec, ...]:
    """The outputs of `classified`. several: more than one label may apply to an item."""
    outputs = (TensorSpec("label", "BYTES", (-1,)), TensorSpec("probabilities", "FP32", (-1, len(labels))))
    return (*outputs, TensorSpec("labels", "BYTES", (-1,))) if several else outputs


def classified(
    probabilities: np.ndarray, labels: Sequence[str], several: bool = False, chosen: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """ "label" (the most probable, or the class numbers `chosen`) and "probabilities" of a batch.

    several adds "labels": per item a JSON list of every label from SEVERAL_THRESHOLD on.
    """
    import numpy as np

    outputs = {
        "label": names_of(tuple(labels))[probabilities.argmax(axis=1) if chosen is None else chosen],
        "probabilities": np.ascontiguousarray(probabilities, dtype=np.float32),
    }
    if several:
        outputs["labels"] = several_labels(probabilities >= SEVERAL_THRESHOLD, labels)
    return outputs


@lru_cache(maxsize=8)
def names_of(labels: tuple[str, ...]) -> np.ndarray:
    """The labels as an array, to take by number; the same array each time."""
    import numpy as np

    names = np.array(labels, dtype=object)
    names.flags.writeable = False
    return names


def several_labels(applies: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Per item a JSON list of the labels that apply. applies: bool [items, labels]."""
    import numpy as np

    names = names_of(tuple(labels))
    return np.array([json.dumps(names[row].tolist()) for row in applies], dtype=object)
