"""The memory budget as loaderd told it: what models may hold, what they hold, what is promised, what is free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelhub.api.fields import MEBIBYTE, mebibytes
from modelhub.lifecycle.observed import LoaderView


def budget(loader: LoaderView) -> dict[str, Any]:
    """{"memory": {"limit_mb", "used_mb", "reserved_mb", "free_mb"}, "gpu": likewise}; no query.

    Whole MiB that add up: the limit is rounded down, what is used and reserved up, and free is limit - used - reserved,
    below zero when the models hold more than they may. All are None while loaderd is away, and on the GPU without one.
    """
    told: Mapping[str, Any] = loader.facts.get("budget") or {} if loader.reachable else {}
    return {
        "memory": _figures(told.get("budget_bytes"), told.get("used_bytes"), told.get("reserved_bytes")),
        "gpu": _figures(told.get("gpu_budget_bytes"), told.get("gpu_used_bytes"), told.get("gpu_reserved_bytes")),
    }


def _figures(limit: int | None, used: int | None, reserved: int | None) -> dict[str, int | None]:
    limit_mb = None if limit is None else limit // MEBIBYTE
    used_mb, reserved_mb = mebibytes(used), mebibytes(reserved)
    free_mb = None if limit_mb is None else limit_mb - (used_mb or 0) - (reserved_mb or 0)
    return {"limit_mb": limit_mb, "used_mb": used_mb, "reserved_mb": reserved_mb, "free_mb": free_mb}
