"""A causal network that writes several texts at once, with the keys and values of each kept between steps.

The rows of a batch are padded on the left to the longest one. What is padding is masked and each row counts its own
positions, so a row computes the same whoever is beside it. A row that joins is padded to the width of the others, or
they to its; when rows leave, columns that are padding for all that stay are dropped.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

CPU_CHUNK_TOKENS = 256  # about what a small model on one core reads in the time that some steps take
GPU_CHUNK_TOKENS = 2048
CACHE_BYTES = 512 * 2**20  # keys and values of all rows together; of a GPU, CACHE_SHARE of what is free if that is more
CACHE_SHARE = 0.25
PADDED_MODELS = frozenset({"bloom", "mpt"})  # take their positions from the mask, so that padding does no harm
MAX_ROWS = 32


def decodes(network: Any) -> bool:
    """Whether the network keeps keys and values in the way that is needed here; state-space models do not."""
    return bool(network._supports_default_dynamic_cache()) and not network.config.is_encoder_decoder


class CausalDecoder:
    """The `Decoder` of a causal network of transformers."""

    def __init__(self, network: Any) -> None:
        self._network = network
        self._device = network.device
        taken = inspect.signature(network.forward).parameters
        self._takes_positions = "position_ids" in taken
        self._options: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in taken else {}
        can_pad = self._takes_positions or network.config.model_type in PADDED_MODELS
        self.max_rows = MAX_ROWS if can_pad else 1
        self.max_cells = _cache_bytes(self._device) // _cell_bytes(network)
        self.chunk_tokens = GPU_CHUNK_TOKENS if self._device.type == "cuda" else CPU_CHUNK_TOKENS
        self._cache = DynamicCache()
        self._mask = self._empty_mask()
        self._positions: list[int] = []  # of each row's next token

    def _empty_mask(self) -> torch.Tensor:
        return torch.zeros((0, 0), dtype=torch.long, device=self._device)

    def read(self, prompts: Sequence[Sequence[int]]) -> _Reading:
        return _Reading(self, self._device, self.chunk_tokens, prompts)

    @torch.inference_mode()
    def forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor, cache: DynamicCache
    ) -> torch.Tensor:
        """The logits behind the last of the tokens; the cache takes their keys and values in."""
        given = {"position_ids": positions} if self._takes_positions else {}
        made = self._network(
            input_ids=tokens, attention_mask=mask, past_key_values=cache, use_cache=True, **given, **self._options
        )
        return made.logits[:, -1]

    @torch.inference_mode()
    def join(self, reading: _Reading, prompts: Sequence[int]) -> None:
        chosen = torch.tensor(prompts, device=self._device)
        mask = reading.mask.index_select(0, chosen)
        positions = [reading.lengths[prompt] for prompt in prompts]
        joining = [(keys[chosen], values[chosen]) for keys, values in _layers(reading.cache)]
        if self._positions:
            width = max(self._mask.shape[1], mask.shape[1])
            here = _layers(self._cache)
            joining = [
                (_stacked(keys, new_keys, width, -2), _stacked(values, new_values, width, -2))
                for (keys, values), (new_keys, new_values) in zip(here, joining, strict=True)
            ]
            mask = _stacked(self._mask, mask, width, -1)
        self._set(joining, mask)
        self._positions += positions

    @torch.inference_mode()
    def step(self, tokens: Sequence[int]) -> np.ndarray:
        rows = len(self._positions)
        new = torch.ones((rows, 1), dtype=torch.long, device=self._device)
        self._mask = torch.cat([self._mask, new], dim=1)
        given = torch.tensor(tokens, device=self._device).unsqueeze(1)
        positions = torch.tensor(self._positions, device=self._device).unsqueeze(1)
        logits = self.forward(given, positions, self._mask, self._cache)
        self._positions = [position + 1 for position in self._positions]
        return on_cpu(logits)

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        self._positions = [self._positions[row] for row in rows]
        if not rows:
            self._cache, self._mask = DynamicCache(), self._empty_mask()
            return
        chosen = torch.tensor(rows, device=self._device)
        mask = self._mask.index_select(0, chosen)
        begins = mask.shape[1] - max(self._positions)  # columns before are padding for all of them
        kept = [(keys[chosen, :, begins:], values[chosen, :, begins:]) for keys, values in _layers(self._cache)]
        self._set(kept, mask[:, begins:])

    def _set(self, layers: list[tuple[torch.Tensor, torch.Tensor]], mask: torch.Tensor) -> None:
        cache = DynamicCache()
        for keys, values in layers:
            layer = DynamicLayer()
            layer.lazy_initialization(keys)
            layer.keys, layer.values = keys, values
            cache.layers.append(layer)
        self._cache, self._mask = cache, mask


class _Reading:
    """Prompts that are read together. lengths: of each, in tokens. mask, cache: what is read so far."""

    def __init__(
        self, decoder: CausalDecoder, device: torch.device, chunk_tokens: int, prompts: Sequence[Sequence[int]]
    ) -> None:
        self._decoder = decoder
        self._chunk = max(1, chunk_tokens // len(prompts))
        self._read = 0
        self.lengths = [len(prompt) for prompt in prompts]
        longest = max(self.lengths)
        self._tokens = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
        self.mask = torch.tensor([[0] * (longest - length) + [1] * length for length in self.lengths], device=device)
        self._positions = (self.mask.cumsum(dim=1) - 1).clamp(min=0)
        self.cache = DynamicCache()

    def advance(self) -> np.ndarray | None:
        piece = slice(self._read, self._read + self._chunk)
        logits = self._decoder.forward(
            self._tokens[:, piece], self._positions[:, piece], self.mask[:, : piece.stop], self.cache
        )
        self._read = piece.stop
        return on_cpu(logits) if self._read >= self._tokens.shape[1] else None


def _layers(cache: DynamicCache) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(layer.keys, layer.values) for layer in cache.layers]


def _stacked(rows: torch.Tensor, below: torch.Tensor, width: int, dim: int) -> torch.Tensor:
    """Both, one below the other, with zeros on their left up to the width of dimension `dim`."""
    return torch.cat([_widened(rows, width, dim), _widened(below, width, dim)])


def _widened(tensor: torch.Tensor, width: int, dim: int) -> torch.Tensor:
    missing = width - tensor.shape[dim]
    if not missing:
        return tensor
    padding = (missing, 0) if dim == -1 else (0, 0, missing, 0)
    return torch.nn.functional.pad(tensor, padding)


def on_cpu(logits: torch.Tensor) -> np.ndarray:
    array: np.ndarray = logits.float().cpu().numpy()
    return array


def _cell_bytes(network: Any) -> int:
    """Keys and values of one token in all layers."""
    config = network.config.get_text_config()
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = getattr(config, "num_key_value_heads", None) or heads
    size: int = 2 * config.num_hidden_layers * kept * head_size * network.dtype.itemsize
    return size


def _cache_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return CACHE_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    return max(CACHE_BYTES, int(free * CACHE_SHARE))
