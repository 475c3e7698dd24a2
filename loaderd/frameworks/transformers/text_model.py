"""What every task shares: one input, text."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np
import torch

from loaderd.frameworks.base import Artifact, LoadedModel, Signature, TensorSpec
from loaderd.frameworks.inputs import SAMPLE_TEXT, sample, texts
from loaderd.frameworks.transformers.checkpoint import Checkpoint

if TYPE_CHECKING:
    from loaderd.frameworks.base import Batch

TEXT = TensorSpec("text", "BYTES", (-1,))


class TextModel(LoadedModel):
    """Subclasses build `checkpoint`, call this constructor with their outputs, and answer a list of texts.

    precisions: the lower ones that the task can be loaded in.
    """

    precisions: frozenset[str] = frozenset()

    def __init__(
        self,
        artifact: Artifact,
        checkpoint: Checkpoint,
        outputs: tuple[TensorSpec, ...],
        labels: tuple[str, ...] | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self.signature = Signature((TEXT,), outputs, labels)
        self._metadata = artifact.metadata

    @abstractmethod
    def answer(self, items: list[str]) -> dict[str, np.ndarray]:
        """The outputs for a batch of at least one text; runs under inference_mode."""

    def predict(self, inputs: Batch) -> dict[str, np.ndarray]:
        items = texts(inputs, self.signature)
        with torch.inference_mode():
            return self.answer(items)

    def sample_text(self) -> str:
        return SAMPLE_TEXT

    def sample_input(self) -> dict[str, np.ndarray]:
        return sample(self.signature, self._metadata, self.sample_text())
