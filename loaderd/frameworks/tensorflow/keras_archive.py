"""Reads a .keras archive: looked through before anything of it is built."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import keras
import tensorflow as tf

from loaderd.errors import ArtifactRefused, LoadFailed
from loaderd.frameworks.base import Artifact, ReportProgress
from loaderd.frameworks.labels import declared_labels
from loaderd.frameworks.tensorflow.graph_model import GraphModel, GraphTensor

RUNS_CODE = frozenset({"Lambda", "TFSMLayer", "__lambda__"})
KNOWN_MODULES = frozenset({"keras", "builtins"})  # builtins: how keras writes its own functions, by name


def load_archive(path: Path, artifact: Artifact, report: ReportProgress) -> GraphModel:
    """The model, traced for batches of any size. Raises ArtifactRefused for what can run code."""
    refuse_code(path, artifact.model_id)
    report(0.1)
    network = keras.saving.load_model(path, compile=False, safe_mode=True)
    report(0.7)
    if not getattr(network, "inputs", None):
        raise LoadFailed(
            f"{artifact.model_id} does not tell its inputs; save a Sequential or functional model that was built.",
            model_id=artifact.model_id,
        )
    inputs = [_tensor(tensor.name, tensor) for tensor in network.inputs]
    outputs = _outputs(network)
    model = GraphModel(artifact, _traced(network, inputs, outputs), inputs, outputs)
    if len(network.outputs) == 1:
        _name_classes(model, network.outputs[0], artifact)
    return model


def refuse_code(path: Path, model_id: str) -> None:
    """Raises ArtifactRefused when the archive's configuration names something that is not plain keras."""
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise LoadFailed(
            f"{path.name} of {model_id} is no keras v3 archive ({error}); "
            "save it again with model.save('model.keras').",
            model_id=model_id,
        ) from error
    for part in _objects(config):
        name, module = str(part.get("class_name")), part.get("module")
        foreign = module is not None and str(module).partition(".")[0] not in KNOWN_MODULES
        if name in RUNS_CODE or foreign:
            what = f"{module}.{name}" if foreign else name
            raise ArtifactRefused(
                f"{model_id} contains {what}, which can run code of its own and is never loaded; "
                "rebuild the model from keras layers.",
                model_id=model_id,
                layer=what,
            )


def _objects(node: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(node, dict):
        if "class_name" in node:
            yield node
        for value in node.values():
            yield from _objects(value)
    elif isinstance(node, list):
        for value in node:
            yield from _objects(value)


def _tensor(name: str, tensor: Any) -> GraphTensor:
    return GraphTensor(name, tf.as_dtype(tensor.dtype), tuple(tensor.shape))


def _outputs(network: Any) -> list[GraphTensor]:
    """Named after the layers that make them; numbered where one layer makes several."""
    names = [tensor._keras_history.operation.name for tensor in network.outputs]
    if len(set(names)) < len(names):
        names = [f"output_{number}" for number in range(len(names))]
    return [_tensor(name, tensor) for name, tensor in zip(names, network.outputs, strict=True)]


def _traced(network: Any, inputs: list[GraphTensor], outputs: list[GraphTensor]) -> Any:
    """One concrete function with the batch left open: no batch size is traced again."""
    specs = [tf.TensorSpec(tensor.shape, tensor.dtype, tensor.name) for tensor in inputs]

    @tf.function(input_signature=specs, autograph=False)  # keras layers need no rewriting, which takes source files
    def forward(*tensors: tf.Tensor) -> list[tf.Tensor]:
        given = tensors[0] if len(tensors) == 1 else keras.tree.pack_sequence_as(network.input, list(tensors))
        return list(keras.tree.flatten(network(given, training=False)))

    concrete = forward.get_concrete_function()
    run = _flat(concrete)

    def call(tensors: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        answers = run(*(tensors[tensor.name] for tensor in inputs))
        return dict(zip((tensor.name for tensor in outputs), answers, strict=True))

    return call


def _flat(concrete: Any) -> Callable[..., Sequence[tf.Tensor]]:
    """The function without the binding of arguments, which costs a fifth of a small network's call.

    TensorFlow has no public name for it; where it has another one, the function is called as it is.
    """
    atomic = getattr(concrete, "_inference_function", None)
    if atomic is None or not hasattr(atomic, "call_flat"):
        return cast("Callable[..., Sequence[tf.Tensor]]", concrete)
    weights = tuple(concrete.captured_inputs)
    call_flat = atomic.call_flat
    return lambda *tensors: call_flat(*tensors, *weights)


def _name_classes(model: GraphModel, output: Any, artifact: Artifact) -> None:
    """Labels count where the last layer answers with probabilities: softmax, or sigmoid (several may apply)."""
    labels = declared_labels(artifact)
    activation = _activation(output._keras_history.operation)
    if labels is None or activation is None or len(output.shape) != 2:
        return
    width = output.shape[-1]
    if width == len(labels) and (width > 1 or activation == "sigmoid"):
        model.name_classes(labels, several=activation == "sigmoid")
    elif width == 1 and len(labels) == 2 and activation == "sigmoid":
        model.name_classes(labels)


def _activation(layer: Any) -> str | None:
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    name = getattr(getattr(layer, "activation", None), "__name__", None)
    return name if name in ("softmax", "sigmoid") else None
