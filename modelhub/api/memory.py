"""The memory budget as loaderd last told it: what models may hold, what they hold, what is promised, what is free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelhub.api.fields import mebibytes
from modelhub.lifecycle.observed import LoaderView


def budget(loader: LoaderView) -> dict[str, Any]:
    """{"memory": {"limit_mb", "used_mb", "reserved_mb", "free_mb"}, "gpu": likewise}; no query.

    free: limit - used - reserved, below zero when the models hold more than they may. All are None while loaderd is
    away, and on the GPU without one.
    """
    told: Mapping[str, Any] = loader.facts.get("budget") or {} if loader.reachable else {}
    return {
        "memory": _figures(told.get("budget_bytes"), told.get("used_bytes"), told.get("reserved_bytes")),
        "gpu": _figures(told.get("gpu_budget_bytes"), told.get("gpu_used_bytes"), told.get("gpu_reserved_bytes")),
    }


def _figures(limit: int | None, used: int | None, reserved: int | None) -> dict[str, int | None]:
    free = None if limit is None else limit - (used or 0) - (reserved or 0)
    figures = {"limit_mb": limit, "used_mb": used, "reserved_mb": reserved, "free_mb": free}
    return {name: mebibytes(size_bytes) for name, size_bytes in figures.items()}
