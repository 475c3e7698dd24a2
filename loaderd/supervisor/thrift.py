"""Memory that nobody needs is given back: when a person asks, on schedule, after a keep-alive, and past the budget."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import Any

from loaderd import scheduler
from loaderd.scheduler import Decision, Plan, Victim, Wish
from loaderd.states import ModelState
from loaderd.supervisor.budget import Budget, BudgetHouse

log = logging.getLogger(__name__)

TOP_PRIORITY = 100  # a correction may take any model that is not pinned


class Thrift:
    """Decides by `loaderd.scheduler`, measured anew each time; carries out through the budget."""

    def __init__(self, house: BudgetHouse, budget: Budget) -> None:
        self._house = house
        self._budget = budget

    async def plan(self) -> dict[str, Any]:
        """What an optimisation that a person asks for would unload."""
        await self._budget.look(0.0)
        victims = await self._budget.victims_now(lambda: self._superfluous(pressure_percent=None))
        frees = sum(victim.bytes for victim in victims)
        if victims:
            models = "1 model" if len(victims) == 1 else f"{len(victims)} models"
            sentence = f"Unloading {models} gives back {frees / 2**20:.0f} MiB."
        else:
            rules = self._house.rules
            sentence = scheduler.why_nothing(
                self._budget.snapshot(),
                min_residency_seconds=rules.min_residency_seconds,
                low_usage_threshold=rules.low_usage_threshold,
            )
        return {
            "decision": "frees",
            "victims": [
                {
                    "model_id": victim.model_id,
                    "bytes": victim.bytes,
                    "gpu_bytes": victim.gpu_bytes,
                    "reason": victim.reason,
                }
                for victim in victims
            ],
            "frees_bytes": frees,
            "sentence": sentence,
        }

    async def optimise(self, *, pressure_percent: float | None) -> dict[str, Any]:
        """Unloads what is superfluous, and answers what was promised and what was measured as freed.

        pressure_percent: see scheduler.superfluous; None when a person asks.
        """
        began = time.monotonic()
        await self._budget.look(0.0)
        victims = await self._budget.victims_now(lambda: self._superfluous(pressure_percent=pressure_percent))
        unloads = [self._budget.let_go(victim.model_id, f"unused: {victim.reason}", "unused") for victim in victims]
        # Shielded: who cancels the operation does not leave a model half unloaded.
        results = await asyncio.gather(*map(asyncio.shield, unloads), return_exceptions=True)
        unloaded = [
            {
                "model_id": victim.model_id,
                "promised_bytes": victim.bytes,
                "freed_bytes": result.get("freed_bytes") or 0,
                "reason": victim.reason,
            }
            for victim, result in zip(victims, results, strict=True)
            if isinstance(result, dict)
        ]
        return {
            "status": "completed",
            "unloaded": unloaded,
            "promised_bytes": sum(entry["promised_bytes"] for entry in unloaded),
            "freed_bytes": sum(entry["freed_bytes"] for entry in unloaded),
            "seconds": time.monotonic() - began,
        }

    def _superfluous(self, *, pressure_percent: float | None) -> list[Victim]:
        rules = self._house.rules
        return scheduler.superfluous(
            self._budget.snapshot(),
            min_residency_seconds=rules.min_residency_seconds,
            unused_timeout_seconds=rules.unused_timeout_seconds,
            low_usage_threshold=rules.low_usage_threshold,
            pressure_percent=pressure_percent,
        )

    async def end_idle(self) -> None:
        """Unloads models that were idle for as long as their policy keeps them alive."""
        for victim in await self._budget.victims_now(self._idle):
            self._budget.let_go(victim.model_id, victim.reason, "idle")

    def _idle(self) -> list[Victim]:
        found = []
        for claim in self._budget.snapshot().claims:
            keep_alive = self._house.rules.policy_of(claim.model_id).keep_alive_seconds
            if keep_alive is None or claim.state is not ModelState.LOADED:
                continue
            if claim.idle_seconds >= keep_alive and not (claim.in_flight or claim.pinned or claim.protected):
                reason = f"idle for {claim.idle_seconds:.0f} s, kept alive for {keep_alive:g} s"
                found.append(Victim(claim.model_id, claim.frees_bytes, claim.frees_gpu_bytes, reason))
        return found

    async def correct(self) -> None:
        """Evicts when the models grew past the budget, or the budget was lowered; what cannot go is left, and
        the health's alert tells of it."""
        if self._plan_correction().decision is not Decision.EVICTS:
            return
        for victim in await self._budget.victims_now(lambda: self._plan_correction().victims):
            limit = self._budget.limit_bytes()
            reason = f"evicted because the models hold more than the budget of {limit / 2**20:.0f} MiB: {victim.reason}"
            self._budget.let_go(victim.model_id, reason, "evicted")

    def _plan_correction(self) -> Plan:
        """A wish for one byte more than nothing: it lacks exactly what is held too much."""
        # What other programs take of the machine bounds loads; it is no reason to evict who is loaded.
        snapshot = replace(self._budget.snapshot(measured_only=True), available_bytes=None, gpu_free_bytes=None)
        # Of a load under way counts what it holds: nobody goes for what is only promised.
        holding = [
            replace(claim, bytes=claim.frees_bytes, gpu_bytes=claim.frees_gpu_bytes)
            if claim.state is ModelState.LOADING
            else claim
            for claim in snapshot.claims
        ]
        snapshot = replace(snapshot, claims=holding)
        gpu_held = sum(claim.gpu_bytes for claim in snapshot.claims)
        is_over = snapshot.gpu_budget_bytes is not None and gpu_held > snapshot.gpu_budget_bytes
        wish = Wish("", 1, gpu_bytes=1 if is_over else 0, priority=TOP_PRIORITY)
        return scheduler.decide(snapshot, wish, min_residency_seconds=self._house.rules.min_residency_seconds)
