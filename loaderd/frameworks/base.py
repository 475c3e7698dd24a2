"""The contract of a framework: how one kind of model is imported, loaded, described and asked.

Who calls what, and where:
  zygote          `import_library()` once, single-threaded, before anything is loaded. It must not run an
                  operation of the library, start a thread or touch a GPU: a child forked afterwards hangs.
  model process   `load(artifact, report)` once; then, on one dedicated thread, `warm_up` and `predict`.
                  Meanwhile, on other threads, `prepare` of the requests that come next. After the last
                  prediction `unload` on the dedicated thread, for 2 seconds at most.
  supervisor      ends the process, which gives back all else.

A framework imports its library inside functions only, so naming it costs nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Batch = Mapping[str, np.ndarray]

ReportProgress = Callable[[float], None]
"""Called with the share of the load that is done, 0.0 to 1.0."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, Open Inference Protocol datatype (BYTES, FP32, INT64, …) and shape of one input or output.

    The first dimension is the batch and is -1; -1 elsewhere means any size. Text is BYTES with shape
    [-1]: one string per item.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Signature:
    """What a loaded model takes and gives.

    labels: class names in the order of the columns of the output named "probabilities", or None.
    A classifier's outputs are "label" (BYTES [-1]) and "probabilities" (FP32 [-1, classes]) when the model has them,
    or else "scores" of a decision function; "labels" (a JSON list per item) where several may apply.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...] | None = None

    @property
    def takes_text(self) -> bool:
        return len(self.inputs) == 1 and self.inputs[0].datatype == "BYTES" and self.inputs[0].shape == (-1,)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A verified directory to load from.

    files: relative paths that the manifest lists; nothing else in the directory may be read.
    format: as the catalogue detected it ("skops", "pickle", "safetensors", …). approved: a person
    approved exactly these bytes; without it a format that can run code must be refused (ArtifactRefused).
    precision: "" computes as the weights are stored; PRECISIONS names the lower ones. A framework that does not know
    the one that is asked for refuses the load: `refuse_precision` of precision.py.
    """

    model_id: str
    directory: Path
    format: str
    files: tuple[str, ...]
    approved: bool
    threads: int = 1
    precision: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)


PRECISIONS = {
    "bf16": "weights and arithmetic in bfloat16",
    "int8": "linear layers in 8-bit integers, with a scale for each row of their inputs",
}
"""Lower precisions that a model may be loaded in."""

TOKENS = "tokens"
"""A hidden output (INT32 [-1]): how many tokens each item had, special ones included, padding not. It is in no
signature, so no client gets it; usage counts are made of it."""


class LoadedModel(ABC):
    """A model in memory. Used by one thread at a time, and but for `prepare` by the one that loaded it, unless it says
    otherwise.

    any_thread: whether another thread may call `predict`: short calls are then made where the request was read.
    prepares: whether `prepare` does anything. generation: of a text generator, how it is asked for a stream of tokens;
    None for every other model.
    """

    signature: Signature
    any_thread: bool = False
    prepares: bool = False
    generation: Any | None = None

    @abstractmethod
    def predict(self, inputs: Batch) -> dict[str, np.ndarray]:
        """Outputs by name for a batch; every array has the batch as its first dimension.

        inputs holds exactly the signature's inputs with their dtypes (BYTES: object arrays of `str` or
        `bytes`), or what `prepare` made of them. Raises InvalidInput when the values do not fit; anything else
        counts as the model's failure. Beside the signature's outputs there may be the hidden one, TOKENS.
        """

    def prepare(self, inputs: Batch) -> Batch | None:
        """What of a request's work needs no model, done before its turn comes: tokenisation, say.

        Returns another batch of the same items that `predict` takes in place of the inputs (it may be sliced, and
        joined with others along the first dimension; object arrays are fine), or None where there is nothing to do.
        Called on any thread, by several at once, and beside `predict`. Raises InvalidInput.
        """
        del inputs
        return None

    @abstractmethod
    def sample_input(self) -> dict[str, np.ndarray]:
        """A batch of one that `predict` accepts: for the warm-up, the playground and the canary."""

    def warm_up(self) -> None:
        """Runs what the first request would otherwise pay for."""
        self.predict(self.sample_input())

    def unload(self) -> None:  # noqa: B027 - most have nothing to give back
        """Gives back what the end of the process does not: a temporary directory, say. Errors are logged only."""


class Framework(ABC):
    """One kind of model."""

    name: str
    _is_imported = False

    def ensure_imported(self) -> None:
        """Imports the library once; a forked child finds it done by its zygote."""
        if not self._is_imported:
            self.import_library()
            self._is_imported = True

    @abstractmethod
    def import_library(self) -> None:
        """Imports all that a load needs, and runs nothing."""

    @abstractmethod
    def load(self, artifact: Artifact, report: ReportProgress) -> LoadedModel:
        """The model, ready to predict. Raises ArtifactRefused, LoadFailed, or whatever the library raises."""
