"""What an optimisation unloads: memory that nobody seems to need."""

from __future__ import annotations

from loaderd.scheduler.plan import Victim
from loaderd.scheduler.protection import for_now, is_young
from loaderd.scheduler.regret import regret_seconds, usage
from loaderd.scheduler.snapshot import Claim, Snapshot
from loaderd.scheduler.wording import duration, listed, percent
from loaderd.states import ModelState

LOW_USAGE_IDLE_SECONDS = 10 * 60.0
"""A model asked within the last ten minutes is in use, however seldom it is asked."""


def superfluous(
    snapshot: Snapshot,
    *,
    min_residency_seconds: float,
    unused_timeout_seconds: float,
    low_usage_threshold: float,
    pressure_percent: float | None,
) -> list[Victim]:
    """What an optimisation unloads: what was not asked for `unused_timeout_seconds`, and what is little used: that
    always when pressure_percent is None (a person asked), else only while the models hold more than that share of the
    budget (RAM, or GPU for models that hold some).

    Little used: asked in less than the share `low_usage_threshold` of the last hour's minutes, and idle for ten
    minutes at least. Never pinned, busy, protected, or younger than the minimum residency. In the order in which
    they should go: unused, then little used with the least regret first.
    """
    free_to_go = [
        claim
        for claim in snapshot.claims
        if claim.state == ModelState.LOADED and not claim.pinned and not for_now(claim, min_residency_seconds)
    ]
    unused = [claim for claim in free_to_go if claim.idle_seconds >= unused_timeout_seconds]
    unused.sort(key=lambda claim: -claim.idle_seconds)
    chosen = [(claim, f"not asked for {duration(claim.idle_seconds)}") for claim in unused]
    pressure = _Pressure(snapshot, pressure_percent)
    for claim, _ in chosen:
        pressure.without(claim)
    little = [
        claim
        for claim in free_to_go
        if claim.idle_seconds < unused_timeout_seconds
        and claim.idle_seconds >= LOW_USAGE_IDLE_SECONDS
        and claim.usage_share < low_usage_threshold
    ]
    for claim in sorted(little, key=regret_seconds):
        if pressure.eased_by(claim):
            pressure.without(claim)
            chosen.append((claim, f"{usage(claim)}, idle {duration(claim.idle_seconds)}"))
    return [Victim(claim.model_id, claim.frees_bytes, claim.frees_gpu_bytes, why) for claim, why in chosen]


def why_nothing(snapshot: Snapshot, *, min_residency_seconds: float, low_usage_threshold: float) -> str:
    """The sentence for a person who asked when nothing is superfluous: what keeps each loaded model."""
    kept: dict[str, list[str]] = {}
    for claim in snapshot.claims:
        if claim.state == ModelState.LOADED:
            why = _why_it_stays(claim, min_residency_seconds, low_usage_threshold)
            kept.setdefault(why, []).append(claim.model_id)
    if not kept:
        return "Nothing is superfluous: no model is loaded."
    told = "; ".join(f"{listed(names)} ({why})" for why, names in kept.items())
    return f"Nothing is superfluous; kept are {told}."


def _why_it_stays(claim: Claim, min_residency_seconds: float, low_usage_threshold: float) -> str:
    if claim.pinned:
        return "pinned"
    if claim.in_flight > 0:
        return "requests in flight"
    if is_young(claim, min_residency_seconds):
        return f"loaded less than {duration(min_residency_seconds)} ago"
    if claim.protected:
        return claim.protected
    if claim.idle_seconds < LOW_USAGE_IDLE_SECONDS:
        return f"asked or loaded within the last {duration(LOW_USAGE_IDLE_SECONDS)}"
    if claim.usage_share >= low_usage_threshold:
        return f"asked in {percent(low_usage_threshold)} of the minutes or more"
    return "nothing would come back"


class _Pressure:
    """How far the models are above the share of the budgets from which on memory counts as short."""

    def __init__(self, snapshot: Snapshot, pressure_percent: float | None) -> None:
        self._always = pressure_percent is None
        share = (pressure_percent or 0.0) / 100.0

        def above(budget: int | None, held: int) -> float:
            return 0.0 if budget is None else held - budget * share

        staying = [claim for claim in snapshot.claims if claim.state != ModelState.UNLOADING]
        self._above = above(snapshot.budget_bytes, sum(claim.bytes for claim in staying))
        self._gpu_above = above(snapshot.gpu_budget_bytes, sum(claim.gpu_bytes for claim in staying))

    def eased_by(self, claim: Claim) -> bool:
        """Whether its end gives something of what is short; when a person asked, anything at all."""
        ram, gpu = claim.frees_bytes > 0, claim.frees_gpu_bytes > 0
        return (ram and (self._always or self._above > 0)) or (gpu and (self._always or self._gpu_above > 0))

    def without(self, claim: Claim) -> None:
        self._above -= claim.bytes
        self._gpu_above -= claim.gpu_bytes
