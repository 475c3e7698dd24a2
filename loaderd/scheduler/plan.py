"""What would happen: the answer of `decide` and `superfluous`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Decision(StrEnum):
    FITS = "fits"  # there is room
    EVICTS = "evicts"  # there is room when the victims are gone, and what is being unloaded already
    WAITS = "waits"  # there will be room: what is being unloaded comes back, or a protection ends
    REFUSED = "refused"  # does not fit and cannot be made to fit


@dataclass(frozen=True, slots=True)
class Victim:
    """A model that has to go. bytes, gpu_bytes: what comes back. reason: why this one ("idle 3 h, asked in 2 % of
    the last hour's minutes")."""

    model_id: str
    bytes: int
    gpu_bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class Kept:
    """A model that could have made room and was not taken. reason: "pinned", "2 requests in flight", "loaded 4 s
    ago", "priority 80 is above 50", …"""

    model_id: str
    bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What would happen, with its sum; `to_message()` is what API, admin, commands and errors carry.

    used_bytes: held by models now, as measured; reserved_bytes: promised to loads under way beyond what they hold;
    headroom_bytes: kept for loaded models that held so much more before, and may again. The wish's own model and the
    one that it replaces count as gone in all three; with free_bytes they add up to the budget, where that is what
    bounds. gpu_used_bytes holds all three for the GPU.
    free_bytes, gpu_free_bytes: what is left of the budget, or of the machine where that is less; below zero when the
    models hold more than they may. wait_seconds: for WAITS, when to look again at the latest; None: when something
    changes. sentence: for people: "Loading X needs 210 MiB (measured); evicts A and B (312 MiB)."
    """

    decision: Decision
    model_id: str
    needed_bytes: int
    needed_gpu_bytes: int
    measured: bool
    used_bytes: int
    reserved_bytes: int
    headroom_bytes: int
    free_bytes: int | None
    budget_bytes: int | None
    gpu_used_bytes: int
    gpu_free_bytes: int | None
    gpu_budget_bytes: int | None
    victims: tuple[Victim, ...] = ()
    kept: tuple[Kept, ...] = ()
    wait_seconds: float | None = None
    sentence: str = ""

    def to_message(self) -> dict[str, Any]:
        """{"decision", "model_id", "needed_bytes", …, "evict": [{"model_id", "bytes", "gpu_bytes", "reason"}],
        "kept": [{"model_id", "bytes", "reason"}], "sentence"}: JSON values."""
        message = asdict(self)
        message["decision"] = str(self.decision)
        message["evict"] = [asdict(victim) for victim in self.victims]
        message["kept"] = [asdict(kept) for kept in self.kept]
        del message["victims"]
        return message
