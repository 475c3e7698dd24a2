"""Who may be loaded, and who has to go for it: pure functions from a snapshot to a plan.

Nothing here looks at a clock, a process or a GPU; the supervisor takes the snapshot and carries out the plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from loaderd.states import ModelState


class Decision(StrEnum):
    FITS = "fits"  # there is room
    EVICTS = "evicts"  # there is room when the victims are gone
    WAITS = "waits"  # there will be room: what is being unloaded comes back, or a protection ends
    REFUSED = "refused"  # does not fit and cannot be made to fit


@dataclass(frozen=True, slots=True)
class Claim:
    """What one model holds, or is promised.

    state: LOADING, LOADED or UNLOADING. bytes, gpu_bytes: what counts against the budget: for a load under way its
    expected peak, for a loaded model the more of what it holds now and its highest before, for one that is being
    unloaded what it still holds. frees_bytes, frees_gpu_bytes: what its end gives back for sure (measured now).
    usage_share: share of the last hour's minutes in which it was asked, 0.0 to 1.0. reload_seconds: how long its
    last load took. protected: why it must not be evicted now ("" when it may), beside the rules below.
    """

    model_id: str
    state: ModelState
    bytes: int
    gpu_bytes: int = 0
    frees_bytes: int = 0
    frees_gpu_bytes: int = 0
    pinned: bool = False
    priority: int = 50
    in_flight: int = 0
    idle_seconds: float = 0.0
    resident_seconds: float = 0.0
    usage_share: float = 0.0
    reload_seconds: float = 0.0
    wished: bool = True
    protected: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What there is. Limits are None where there is none.

    budget_bytes: what all models together may hold. available_bytes: what the machine (or cgroup) has left for
    anybody, the claims' present holdings already taken off. gpu_free_bytes: likewise on the GPU, by NVML.
    """

    claims: Sequence[Claim]
    budget_bytes: int | None = None
    gpu_budget_bytes: int | None = None
    available_bytes: int | None = None
    gpu_free_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """A load that is asked for. bytes, gpu_bytes: its expected peak. measured: from the last load of these bytes on
    this device, else estimated. protected: models that must not be evicted for it. replaces: a model that the
    caller will have unloaded before the load begins (a stated gap)."""

    model_id: str
    bytes: int
    gpu_bytes: int = 0
    priority: int = 50
    measured: bool = False
    protected: frozenset[str] = frozenset()
    replaces: str | None = None


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

    wait_seconds: for WAITS, when to look again at the latest; None: when something changes. sentence: for people:
    "Loading X needs 210 MiB (measured); evicts A and B (312 MiB)."
    """

    decision: Decision
    model_id: str
    needed_bytes: int
    needed_gpu_bytes: int
    measured: bool
    used_bytes: int
    reserved_bytes: int
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
        raise NotImplementedError


def decide(snapshot: Snapshot, wish: Wish, *, min_residency_seconds: float) -> Plan:
    """Whether the wish fits, what has to go for it, what it waits for, or why it cannot be."""
    raise NotImplementedError


def superfluous(
    snapshot: Snapshot,
    *,
    min_residency_seconds: float,
    unused_timeout_seconds: float,
    low_usage_threshold: float,
    pressure_percent: float | None,
) -> list[Victim]:
    """What an optimisation unloads: what nobody wishes loaded, what was not asked for `unused_timeout_seconds`, and
    what is little used: always when pressure_percent is None (a person asked), else only while the models hold more
    than that share of the budget."""
    raise NotImplementedError
