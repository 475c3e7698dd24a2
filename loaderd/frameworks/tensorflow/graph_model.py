"""A traced TensorFlow function that answers batches of any size without being traced again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from loaderd.errors import InvalidInput, LoadFailed
from loaderd.frameworks.base import Artifact, LoadedModel, Signature, TensorSpec
from loaderd.frameworks.inputs import DATATYPES, checked, sample
from loaderd.frameworks.labels import classified, classifier_outputs

if TYPE_CHECKING:
    from loaderd.frameworks.base import Batch

SUM_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class GraphTensor:
    """An input or output of the function; shape[0] is the batch and None."""

    name: str
    dtype: Any  # tf.DType
    shape: tuple[int | None, ...]

    @property
    def is_text_column(self) -> bool:
        """Keras likes its texts as a column, [None, 1]; to a caller each is one item."""
        return self.dtype == tf.string and self.shape == (None, 1)

    def spec(self, model_id: str) -> TensorSpec:
        if not self.shape or self.shape[0] is not None:
            raise LoadFailed(
                f"{model_id} has {self.name} of the shape {list(self.shape)}; the first dimension must be open "
                "(None), so that it can be asked in batches.",
                model_id=model_id,
            )
        datatype = "BYTES" if self.dtype == tf.string else DATATYPES.get(_dtype_name(self.dtype))
        if datatype is None:
            raise LoadFailed(f"{model_id} has {self.name} of the type {self.dtype.name}, which cannot be sent.")
        shape = (None,) if self.is_text_column else self.shape
        return TensorSpec(self.name, datatype, tuple(-1 if size is None else size for size in shape))


class GraphModel(LoadedModel):
    """call: takes the input tensors by name and returns the output tensors by name."""

    any_thread = True  # its functions keep nothing for a thread

    def __init__(
        self,
        artifact: Artifact,
        call: Callable[[Mapping[str, tf.Tensor]], Mapping[str, tf.Tensor]],
        inputs: Sequence[GraphTensor],
        outputs: Sequence[GraphTensor],
    ) -> None:
        self._call = call
        self._inputs = {tensor.name: tensor for tensor in inputs}
        self._metadata = artifact.metadata
        self._labels: tuple[str, ...] | None = None
        self._several = False
        self.signature = Signature(
            tuple(tensor.spec(artifact.model_id) for tensor in inputs),
            tuple(tensor.spec(artifact.model_id) for tensor in outputs),
        )

    def name_classes(self, labels: Sequence[str], several: bool = False) -> None:
        """From now on the one output counts as the probabilities of these classes."""
        self._labels, self._several = tuple(labels), several
        self.signature = Signature(self.signature.inputs, classifier_outputs(labels, several), self._labels)

    def predict(self, inputs: Batch) -> dict[str, np.ndarray]:
        outputs = self._run(checked(inputs, self.signature))
        if self._labels is None:
            return outputs
        (probabilities,) = outputs.values()
        if len(self._labels) == 2 and probabilities.shape[1] == 1:  # one sigmoid tells both
            probabilities = np.concatenate([1 - probabilities, probabilities], axis=1)
        return classified(probabilities, self._labels, self._several)

    def sample_input(self) -> dict[str, np.ndarray]:
        return sample(self.signature, self._metadata)

    def answers_probabilities(self) -> bool:
        """Whether the sample's answer looks like a softmax: nothing negative, rows that sum to 1."""
        (answer,) = self._run(self.sample_input()).values()
        return bool((answer >= 0).all() and np.allclose(answer.sum(axis=-1), 1.0, atol=SUM_TOLERANCE))

    def _run(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        tensors = {
            name: tf.constant(array[:, None] if self._inputs[name].is_text_column else array, self._inputs[name].dtype)
            for name, array in arrays.items()
        }
        try:
            answers = self._call(tensors)
        except tf.errors.InvalidArgumentError as error:
            raise InvalidInput(f"The model does not take these values: {_reason(error)}") from error
        return {name: _as_array(answer) for name, answer in answers.items()}


def _reason(error: tf.errors.InvalidArgumentError) -> str:
    """The one line of TensorFlow's message that is not about its own code."""
    lines = [line.strip() for line in str(error.message).splitlines() if line.strip()]
    about_code = ("Graph execution error", "Detected at node", "File ", "[[")
    return next((line for line in lines if not line.startswith(about_code)), lines[-1] if lines else "no reason given")


def _dtype_name(dtype: Any) -> str:
    return "float32" if dtype == tf.bfloat16 else str(dtype.name)


def _as_array(tensor: tf.Tensor) -> np.ndarray:
    array = (tf.cast(tensor, tf.float32) if tensor.dtype == tf.bfloat16 else tensor).numpy()
    return array[:, 0] if array.dtype == object and array.ndim == 2 and array.shape[1] == 1 else array
