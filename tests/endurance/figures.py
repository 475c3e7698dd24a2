"""What an endurance run found out: rows of a table, each with whether it is as promised."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """kept: None when it is only reported."""

    what: str
    value: str
    promise: str = ""
    kept: bool | None = None


def mebibytes(count: float) -> str:
    return f"{count / 2**20:.1f} MiB"
