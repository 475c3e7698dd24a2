"""Linear layers of an encoder on a processor, their weights laid out once for the precision they compute in."""

from __future__ import annotations

import platform
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch.nn import functional

Activation = Callable[[torch.Tensor], torch.Tensor]

FUSED = {"gelu": ("gelu", "none"), "gelu_python": ("gelu", "none"), "gelu_new": ("gelu", "tanh"),
         "gelu_pytorch_tanh": ("gelu", "tanh"), "relu": ("relu", "")}  # fmt: skip
"""Names of activations that oneDNN computes while a layer's result is still in the cache."""


class Linear(ABC):
    """A layer of one or more that read the same input, side by side."""

    @abstractmethod
    def __call__(self, rows: torch.Tensor) -> torch.Tensor: ...

    @abstractmethod
    def added_to(self, residual: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """residual + self(rows)."""


class PlainLinear(Linear):
    """Where oneDNN is not at hand."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, activation: Activation | None = None) -> None:
        self._weight, self._bias, self._activation = weight, bias, activation

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        made = functional.linear(rows, self._weight, self._bias)
        return made if self._activation is None else self._activation(made)

    def added_to(self, residual: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return self(rows).add_(residual)


class BlockedLinear(Linear):
    """oneDNN's, with weights in the blocks that its kernels read, and what follows fused into them.

    A kernel is made for each number of rows, half a megabyte each: ask with few different ones.
    """

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor, fused: tuple[str, str], activation: Activation | None
    ) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
        self._bias = bias.contiguous()
        self._fused, self._algorithm = fused
        self._activation = activation

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, self._weight, self._bias, self._fused, [], self._algorithm
        )
        return made if self._activation is None else self._activation(made)

    def added_to(self, residual: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(rows, residual, self._weight, self._bias, "add")
        return made


class QuantizedLinear(Linear):
    """8-bit weights with a scale per output, inputs quantised with a scale per row: no row changes another's answer."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, activation: Activation | None = None) -> None:
        self._scales = _scales(weight)
        self._weight = (weight / self._scales).round_().to(torch.int8).t().contiguous()
        self._scales = self._scales.flatten()
        self._bias, self._activation = bias, activation

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        scales = _scales(rows)
        made = torch._int_mm((rows / scales).round_().to(torch.int8), self._weight).to(torch.float32)
        made.mul_(scales).mul_(self._scales).add_(self._bias)
        return made if self._activation is None else self._activation(made)

    def added_to(self, residual: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return self(rows).add_(residual)


class QuantizedModule(torch.nn.Module):
    """In the place of a torch.nn.Linear in a network that transformers calls."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        self._linear = linear([layer], "int8")
        self._width = layer.out_features

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self._linear(values.reshape(-1, values.shape[-1])).view(*values.shape[:-1], self._width)


def quantize(network: torch.nn.Module) -> None:
    """Puts 8-bit layers in the place of all of the network's linear ones."""
    for module in list(network.modules()):
        for name, layer in list(module.named_children()):
            if type(layer) is torch.nn.Linear:
                setattr(module, name, QuantizedModule(layer))


def _scales(rows: torch.Tensor) -> torch.Tensor:
    """Of each row, as a column; 1 step of 127 reaches its largest value."""
    return rows.abs().amax(dim=1, keepdim=True).div_(127).clamp_(min=torch.finfo(torch.float32).tiny)


def linear(layers: list[torch.nn.Linear], precision: str, activation: tuple[str, Activation] | None = None) -> Linear:
    """The layers side by side as one. activation: its name in a config.json, and the function itself."""
    name, function = activation or ("", None)
    weight = torch.cat([layer.weight.detach() for layer in layers])
    bias = torch.cat(
        [torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias.detach() for layer in layers]
    )
    if precision == "int8":
        return QuantizedLinear(weight, bias, function)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    weight, bias = weight.to(dtype), bias.to(dtype)
    if not has_blocks(dtype):
        return PlainLinear(weight, bias, function)
    fused = FUSED.get(name)
    return BlockedLinear(weight, bias, fused or ("none", ""), None if fused else function)


def has_blocks(dtype: torch.dtype) -> bool:
    """Whether this processor and this torch compute linear layers with oneDNN's blocked weights."""
    if not torch.backends.mkldnn.is_available() or platform.machine() != "x86_64":
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
