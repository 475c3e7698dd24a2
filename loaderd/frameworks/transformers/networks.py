"""What the tasks ask of a network, whichever way it computes; and the way that every architecture knows: padded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from loaderd.frameworks.transformers import micro_batches
from loaderd.frameworks.transformers.checkpoint import Checkpoint

CPU_BUDGET_TOKENS = 1024  # throughput does not rise beyond, memory does
GPU_BUDGET_TOKENS = 16384
GPU_MULTIPLE = 8  # what tensor cores like as a length, and what keeps the number of shapes small

Tokens = Sequence[np.ndarray]
"""The token ids of each text."""


class Network(ABC):
    """Called under inference_mode, with one micro-batch. Answers are float32, on the device."""

    @abstractmethod
    def micro_batches(self, lengths: Sequence[int]) -> list[list[int]]:
        """Which texts of a batch to ask for together, by the number of their tokens."""

    @abstractmethod
    def of_texts(self, texts: Tokens, types: Tokens | None) -> torch.Tensor:
        """The head's logits, [texts, …]."""

    @abstractmethod
    def of_tokens(self, texts: Tokens, types: Tokens | None, chosen: np.ndarray | None = None) -> torch.Tensor:
        """The head's logits of every token, text behind text, [tokens, …]; chosen: of those at these places only."""

    @abstractmethod
    def hidden(self, texts: Tokens, types: Tokens | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The last layer, [texts, longest, width], and which places are real tokens, [texts, longest]."""


class PaddedNetwork(Network):
    """The network as transformers calls it. On a GPU inputs are copied from pinned memory, without waiting."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._network = checkpoint.network
        self._device = checkpoint.device
        tokenizer = checkpoint.tokenizer
        self._on_gpu = self._device.type == "cuda"
        self._left = tokenizer.padding_side == "left"
        self._padding, self._padding_type = tokenizer.pad_token_id, tokenizer.pad_token_type_id
        self._budget_tokens = GPU_BUDGET_TOKENS if self._on_gpu else CPU_BUDGET_TOKENS
        self._longest = checkpoint.max_tokens

    def micro_batches(self, lengths: Sequence[int]) -> list[list[int]]:
        return micro_batches.padded(lengths, self._budget_tokens)

    def of_texts(self, texts: Tokens, types: Tokens | None) -> torch.Tensor:
        logits: torch.Tensor = self._network(**self._inputs(texts, types)).logits
        return logits.float()

    def of_tokens(self, texts: Tokens, types: Tokens | None, chosen: np.ndarray | None = None) -> torch.Tensor:
        inputs = self._inputs(texts, types)
        logits: torch.Tensor = self._network(**inputs).logits[inputs["attention_mask"].bool()]
        return (logits if chosen is None else logits[self._sent(chosen)]).float()

    def hidden(self, texts: Tokens, types: Tokens | None) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = self._inputs(texts, types)
        return self._network(**inputs).last_hidden_state.float(), inputs["attention_mask"]

    def _inputs(self, texts: Tokens, types: Tokens | None) -> dict[str, Any]:
        longest = max(map(len, texts))
        if self._on_gpu:
            rounded = -(-longest // GPU_MULTIPLE) * GPU_MULTIPLE
            longest = rounded if self._longest is None else max(longest, min(rounded, self._longest))
        ids = np.full((len(texts), longest), self._padding, dtype=np.int64)
        mask = np.zeros_like(ids)
        kinds = None if types is None else np.full_like(ids, self._padding_type)
        for row, text in enumerate(texts):
            real = slice(longest - len(text), longest) if self._left else slice(0, len(text))
            ids[row, real], mask[row, real] = text, 1
            if kinds is not None and types is not None:
                kinds[row, real] = types[row]
        inputs = {"input_ids": self._sent(ids), "attention_mask": self._sent(mask)}
        return inputs if kinds is None else inputs | {"token_type_ids": self._sent(kinds)}

    def _sent(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(self._device, non_blocking=True) if self._on_gpu else tensor
