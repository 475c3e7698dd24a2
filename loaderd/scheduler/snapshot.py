"""What the supervisor sees at one moment, and what somebody asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from loaderd.states import ModelState


@dataclass(frozen=True, slots=True)
class Claim:
    """What one model holds, or is promised.

    state: LOADING, LOADED or UNLOADING. bytes, gpu_bytes: what counts against the budget: for a load under way its
    expected peak, for a loaded model the more of what it holds now and its highest before, for one that is being
    unloaded what it still holds. frees_bytes, frees_gpu_bytes: what its end gives back for sure (measured now); of a
    load under way, what it has taken so far. A loaded model that gives nothing back is never evicted.
    usage_share: share of the last watched_minutes in which it was asked, 0.0 to 1.0; they are 60, or those since
    loaderd first loaded it. reload_seconds: how long its
    last load took. protected: why it must not be evicted now ("" when it may), beside the rules of
    `loaderd.scheduler.protection`; it ends some time, so loads wait for it.
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
    watched_minutes: int = 60
    reload_seconds: float = 0.0
    protected: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What there is. Limits are None where there is none.

    budget_bytes: what all models together may hold. available_bytes: what the machine (or cgroup) has left for
    anybody, the claims' present holdings already taken off. gpu_free_bytes: likewise on the GPU, by NVML.
    budget_settings, gpu_budget_settings: what a person can raise, by name: the limit in bytes that each one states, of
    which the smallest is the budget.
    """

    claims: Sequence[Claim]
    budget_bytes: int | None = None
    gpu_budget_bytes: int | None = None
    available_bytes: int | None = None
    gpu_free_bytes: int | None = None
    budget_settings: Mapping[str, int] = field(default_factory=dict)
    gpu_budget_settings: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wish:
    """A load that is asked for. bytes, gpu_bytes: its expected peak. measured: from the last load of these bytes on
    this device, else estimated. protected: models that must not be evicted for it, ever: it does not wait for their
    end. replaces: a model that the caller will have unloaded before the load begins (a stated gap). joins: one process
    more for a model that is loaded; the bytes are those of all its processes then."""

    model_id: str
    bytes: int
    gpu_bytes: int = 0
    priority: int = 50
    measured: bool = False
    protected: frozenset[str] = frozenset()
    replaces: str | None = None
    joins: bool = False
