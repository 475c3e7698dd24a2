"""How much memory a load may take that was never measured: an upper bound from format and size."""

from __future__ import annotations

from loaderd.protocol import ModelSpec


def peak_bytes(spec: ModelSpec) -> int:
    """Upper bound of the private memory that a load of these files takes at its highest."""
    raise NotImplementedError


def gpu_bytes(spec: ModelSpec) -> int:
    """Upper bound of the GPU memory, 0 for frameworks that use none."""
    raise NotImplementedError
