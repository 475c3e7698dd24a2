"""Encoders of the BERT family on a processor, without padding: the texts lie behind each other, in one row of tokens.

Linear layers and norms take all tokens at once, attention each text by itself, so that a text's answer costs and is the
same beside whichever others. The head stays that of transformers; it is given the tokens that it looks at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutputWithPooling

from loaderd.frameworks.transformers import micro_batches
from loaderd.frameworks.transformers.linears import Linear, linear
from loaderd.frameworks.transformers.networks import Network, Tokens

BUDGET_TOKENS = 512
BUCKETS = (*range(8, 64, 8), *range(64, 128, 16), *range(128, 256, 32), *range(256, 513, 64))
"""Numbers of tokens that a micro-batch is filled up to: the kernels of oneDNN are made for each."""

BERT_LIKE = frozenset({"BertModel", "RobertaModel", "XLMRobertaModel", "CamembertModel", "ElectraModel"})
COUNTING_REAL_TOKENS = frozenset({"RobertaModel", "XLMRobertaModel", "CamembertModel", "MPNetModel"})
"""Their positions begin behind the padding token's id, and skip padding tokens."""

Norm = tuple[torch.Tensor, torch.Tensor, float]


@dataclass(frozen=True, slots=True)
class Layer:
    qkv: Linear
    out: Linear
    out_norm: Norm
    up: Linear
    down: Linear
    down_norm: Norm


@dataclass(frozen=True, slots=True)
class Parts:
    """Where an architecture keeps what. layers: (query, key, value, out, norm, up, down, norm) of each."""

    layers: list[tuple[Any, ...]]
    heads: int
    activation: str
    first_kind: torch.Tensor | None  # of the token types
    projection: torch.nn.Linear | None = None  # from the embedding's width to the network's
    relative: Callable[[int], torch.Tensor] | None = (
        None  # length -> what is added to attention, [1, heads, length, length]
    )


class PackedEncoder:
    """A base model's tokens to hidden states."""

    def __init__(self, base: Any, parts: Parts, precision: str) -> None:
        embeddings = base.embeddings
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._dtype = dtype
        self._heads = parts.heads
        self._words = embeddings.word_embeddings.weight.detach()
        positions = embeddings.position_embeddings.weight.detach()
        self._positions = positions if parts.first_kind is None else positions + parts.first_kind.detach()
        self._norm = _norm(embeddings.LayerNorm, torch.float32)
        self._projection = None if parts.projection is None else linear([parts.projection], "")
        self._skipped = embeddings.padding_idx if type(base).__name__ in COUNTING_REAL_TOKENS else None
        self._relative = parts.relative
        self._bias = torch.empty(1, 0, 0, 0, dtype=dtype)  # of the longest text so far
        activation = (parts.activation, ACT2FN[parts.activation])
        self._layers = []
        for query, key, value, out, out_norm, up, down, down_norm in parts.layers:
            self._layers.append(
                Layer(
                    linear([query, key, value], precision),
                    linear([out], precision),
                    _norm(out_norm, dtype),
                    linear([up], precision, activation),
                    linear([down], precision),
                    _norm(down_norm, dtype),
                )
            )

    def __call__(self, texts: Tokens) -> torch.Tensor:
        """[tokens, width], text behind text, and some rows of no meaning behind them. Equal lengths go best side by
        side."""
        lengths = [len(text) for text in texts]
        tokens = sum(lengths)
        filling = next((size for size in BUCKETS if size >= tokens), tokens) - tokens
        ids = np.concatenate([*texts, np.zeros(filling, dtype=np.int64)])
        places = np.concatenate([*map(self._places, texts), np.zeros(filling, dtype=np.int64)])
        rows = self._words[torch.from_numpy(ids)] + self._positions[torch.from_numpy(places)]
        rows = functional.layer_norm(rows, rows.shape[-1:], *self._norm)
        if self._projection is not None:
            rows = self._projection(rows)
        rows = rows.to(self._dtype)
        runs = _runs(lengths)
        seen = torch.zeros(rows.shape, dtype=self._dtype)
        for layer in self._layers:
            self._attend(layer.qkv(rows), runs, seen)
            rows = _normed(layer.out.added_to(rows, seen), layer.out_norm)
            rows = _normed(layer.down.added_to(rows, layer.up(rows)), layer.down_norm)
        return rows

    def _attend(self, qkv: torch.Tensor, runs: list[tuple[int, int, int]], seen: torch.Tensor) -> None:
        """Attention of each text on itself, written to `seen`."""
        for start, texts, length in runs:
            real = slice(start, start + texts * length)
            query, key, value = qkv[real].view(texts, length, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
            mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=self._bias_of(length))
            seen[real].view(texts, length, self._heads, -1).copy_(mixed.transpose(1, 2))

    def _places(self, text: np.ndarray) -> np.ndarray:
        if self._skipped is None:
            return np.arange(len(text))
        real = text != self._skipped
        counted: np.ndarray = np.cumsum(real) * real + self._skipped
        return counted

    def _bias_of(self, length: int) -> torch.Tensor | None:
        """What a network that knows relative places adds to the attention of a text of this length."""
        if self._relative is None:
            return None
        if self._bias.shape[-1] < length:
            self._bias = self._relative(length).to(self._dtype).contiguous()
        return self._bias[..., :length, :length]


class _Handed(torch.nn.Module):
    """In the place of a base model: answers what it is handed, so that the head can be called as it is."""

    def __init__(self, pooler: torch.nn.Module | None) -> None:
        super().__init__()
        self.pooler = pooler
        self.hidden = torch.empty(0)

    def forward(self, *args: Any, **options: Any) -> BaseModelOutputWithPooling:
        pooled = None if self.pooler is None else self.pooler(self.hidden)
        return BaseModelOutputWithPooling(last_hidden_state=self.hidden, pooler_output=pooled)


class PackedNetwork(Network):
    def __init__(self, network: Any, precision: str) -> None:
        """Takes the base model, of which `is_packable` was true, out of `network`; `restore` puts it back."""
        base = network.base_model
        self._encode = PackedEncoder(base, parts_of(base), precision)
        self._network = network
        self._base: Any = base
        self._handed: _Handed | None = None
        if network is not base:
            self._handed = _Handed(getattr(base, "pooler", None))
            setattr(network, network.base_model_prefix, self._handed)

    def restore(self) -> None:
        if self._handed is not None:
            setattr(self._network, self._network.base_model_prefix, self._base)

    def keep(self) -> None:
        """Lets the base model go, and the memory of its weights with it."""
        self._base = None
        if self._handed is None:
            self._network = None

    def micro_batches(self, lengths: Sequence[int]) -> list[list[int]]:
        return micro_batches.packed(lengths, BUDGET_TOKENS)

    def of_texts(self, texts: Tokens, types: Tokens | None) -> torch.Tensor:
        lengths = np.array([len(text) for text in texts])
        first = self._encode(texts)[torch.from_numpy(np.cumsum(lengths) - lengths)]
        return self._head(first[:, None])

    def of_tokens(self, texts: Tokens, types: Tokens | None, chosen: np.ndarray | None = None) -> torch.Tensor:
        rows = self._encode(texts)
        rows = rows[: sum(map(len, texts))] if chosen is None else rows[torch.from_numpy(chosen)]
        return self._head(rows[None])[0]

    def hidden(self, texts: Tokens, types: Tokens | None) -> tuple[torch.Tensor, torch.Tensor]:
        rows = self._encode(texts).float()
        hidden = rows.new_zeros(len(texts), max(map(len, texts)), rows.shape[-1])
        mask = torch.zeros(hidden.shape[:2], dtype=torch.long)
        start = 0
        for row, text in enumerate(texts):
            hidden[row, : len(text)] = rows[start : start + len(text)]
            mask[row, : len(text)] = 1
            start += len(text)
        return hidden, mask

    def _head(self, hidden: torch.Tensor) -> torch.Tensor:
        assert self._handed is not None, "a plain encoder has no head"
        self._handed.hidden = hidden.float()
        logits: torch.Tensor = self._network().logits
        self._handed.hidden = torch.empty(0)
        return logits


class NotPackable(Exception):
    """Another architecture, or a variant of a known one that computes otherwise."""


def is_packable(network: Any) -> bool:
    try:
        parts_of(network.base_model)
    except NotPackable:
        return False
    return True


def parts_of(base: Any) -> Parts:
    """Raises NotPackable."""
    name, config = type(base).__name__, base.config
    if getattr(config, "is_decoder", False) or getattr(config, "pruned_heads", None):
        raise NotPackable(name)
    if name in BERT_LIKE:
        if getattr(config, "position_embedding_type", "absolute") != "absolute":
            raise NotPackable(f"{name} with {config.position_embedding_type}")
        layers = [
            (each.attention.self.query, each.attention.self.key, each.attention.self.value,
             each.attention.output.dense, each.attention.output.LayerNorm,
             each.intermediate.dense, each.output.dense, each.output.LayerNorm)
            for each in base.encoder.layer
        ]  # fmt: skip
        kind = base.embeddings.token_type_embeddings.weight[0]
        projection = getattr(base, "embeddings_project", None)
        return Parts(layers, config.num_attention_heads, config.hidden_act, kind, projection)
    if name == "MPNetModel":
        layers = [
            (each.attention.attn.q, each.attention.attn.k, each.attention.attn.v,
             each.attention.attn.o, each.attention.LayerNorm,
             each.intermediate.dense, each.output.dense, each.output.LayerNorm)
            for each in base.encoder.layer
        ]  # fmt: skip
        return Parts(layers, config.num_attention_heads, config.hidden_act, None, relative=_relative(base.encoder))
    if name == "DistilBertModel":
        layers = [
            (each.attention.q_lin, each.attention.k_lin, each.attention.v_lin,
             each.attention.out_lin, each.sa_layer_norm, each.ffn.lin1, each.ffn.lin2, each.output_layer_norm)
            for each in base.transformer.layer
        ]  # fmt: skip
        return Parts(layers, config.n_heads, config.activation, None)
    raise NotPackable(name)


def _relative(encoder: Any) -> Callable[[int], torch.Tensor]:
    """MPNet's `compute_position_bias`, without holding on to its layers."""
    bucket = type(encoder).relative_position_bucket
    weight = encoder.relative_attention_bias.weight.detach()

    def bias(length: int) -> torch.Tensor:
        places = torch.arange(length)
        return weight[bucket(places[None] - places[:, None], num_buckets=32)].permute(2, 0, 1)[None]

    return bias


def _norm(norm: Any, dtype: torch.dtype) -> Norm:
    return norm.weight.detach().to(dtype), norm.bias.detach().to(dtype), norm.eps


def _normed(rows: torch.Tensor, norm: Norm) -> torch.Tensor:
    return functional.layer_norm(rows, rows.shape[-1:], *norm)


def _runs(lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    """(first token, texts, length) of each run of texts that are equally long."""
    runs: list[tuple[int, int, int]] = []
    start = 0
    for length in lengths:
        if runs and runs[-1][2] == length:
            first, texts, _ = runs[-1]
            runs[-1] = (first, texts + 1, length)
        else:
            runs.append((start, 1, length))
        start += length
    return runs
