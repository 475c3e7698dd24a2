"""Reads a SavedModel and asks its serving signature."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from loaderd.errors import LoadFailed
from loaderd.frameworks.base import Artifact, ReportProgress
from loaderd.frameworks.labels import declared_labels
from loaderd.frameworks.tensorflow.graph_model import GraphModel, GraphTensor

GRAPH_FILE = "saved_model.pb"
SIGNATURE = "serving_default"


def load_saved_model(artifact: Artifact, report: ReportProgress) -> GraphModel:
    """The model behind its serving_default signature. Raises LoadFailed when it has none."""
    graph = min((path for path in artifact.files if path.rsplit("/", 1)[-1] == GRAPH_FILE), key=len)
    loaded = tf.saved_model.load((artifact.directory / graph).parent)
    report(0.9)
    function = loaded.signatures.get(SIGNATURE)
    if function is None:
        raise LoadFailed(
            f"{artifact.model_id} has no signature {SIGNATURE} (it has {', '.join(loaded.signatures) or 'none'}); "
            "export it with model.export().",
            model_id=artifact.model_id,
        )

    def call(tensors: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        # The signature lives as long as what was loaded does; naming it here keeps that alive.
        return dict(function(**tensors)) if loaded is not None else {}

    inputs = [_tensor(name, spec) for name, spec in function.structured_input_signature[1].items()]
    outputs = [_tensor(name, spec) for name, spec in function.structured_outputs.items()]
    model = GraphModel(artifact, call, inputs, outputs)
    labels = declared_labels(artifact)
    # A graph does not tell its last activation by name, so the answer is looked at.
    if labels and len(outputs) == 1 and outputs[0].shape[1:] == (len(labels),) and model.answers_probabilities():
        model.name_classes(labels)
    return model


def _tensor(name: str, spec: tf.TensorSpec) -> GraphTensor:
    if spec.shape.rank is None:
        raise LoadFailed(f"Its {name} has no known number of dimensions; export it with a fixed input signature.")
    return GraphTensor(name, spec.dtype, tuple(spec.shape.as_list()))
