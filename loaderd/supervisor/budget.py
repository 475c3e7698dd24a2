"""What all models hold and may hold: the claims that the scheduler decides on, and the evictions that make room."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

from loaderd import estimate, resources, scheduler
from loaderd.protocol import ModelSpec
from loaderd.rules import Rules
from loaderd.scheduler import Claim, Decision, Plan, Snapshot, Victim, Wish
from loaderd.states import ModelState
from loaderd.supervisor.config import DaemonConfig
from loaderd.supervisor.model.managed import ManagedModel
from loaderd.supervisor.telemetry import Telemetry

log = logging.getLogger(__name__)

GPU_LOOK_SECONDS = 0.1
GPU_RETURNED_SHARE = 0.9  # of what a process held on the GPU; the driver keeps a little longer


class BudgetHouse(Protocol):
    """What the budget needs of the daemon around it.

    look: measures the processes whose last measurement is older than max_age_seconds. count: asks a model's process
    for its counters now. protection_of: why a model must not go now, "" when it may. forks: whether a model of the
    framework would be forked from a zygote, as far as is known.
    """

    config: DaemonConfig
    rules: Rules
    telemetry: Telemetry
    gpus: resources.Gpus

    def models(self) -> Iterable[ManagedModel]: ...
    def model(self, model_id: str) -> ManagedModel: ...
    async def look(self, max_age_seconds: float) -> None: ...
    async def count(self, model: ManagedModel) -> None: ...
    def protection_of(self, model_id: str) -> str: ...
    def forks(self, framework: str) -> bool: ...
    def evicted(self, model_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """Of the GPU that models use; None without one."""

    total_bytes: int | None = None
    free_bytes: int | None = None


class Budget:
    """The ledger of one daemon.

    promised: what each load under way was admitted with. kept: places of models that are loaded next, once another one
    has gone for them. on_changed is called when something may fit that did not.
    """

    def __init__(self, house: BudgetHouse, on_changed: Callable[[], None]) -> None:
        self.promised: dict[str, Wish] = {}
        self.kept: dict[str, Wish] = {}
        self._house = house
        self._on_changed = on_changed
        self._going: dict[str, asyncio.Task[dict[str, Any]]] = {}
        self._gpu = GpuMemory()
        self._gpu_returning: dict[str, int] = {}
        self._gpu_waits: set[asyncio.Task[None]] = set()
        # By model_id, and whether its process is forked: of which digest, and what it may take.
        self._estimates: dict[tuple[str, bool], tuple[str, Wish]] = {}

    # What there is

    def limit_bytes(self) -> int:
        """What all models together may hold: the smaller of the rules' two limits."""
        return min(self._settings().values())

    def _settings(self) -> dict[str, int]:
        """What bounds all models together, by the name of the setting."""
        rules, total = self._house.rules, int(resources.machine_memory()["total_bytes"])
        share = {"MAX_MEMORY_USAGE_PERCENT": int(total * rules.max_memory_percent / 100)}
        return share if rules.max_memory_bytes is None else {"MAX_MEMORY_USAGE_MB": rules.max_memory_bytes, **share}

    def gpu_limit_bytes(self) -> int | None:
        """Likewise on the GPU; None without one."""
        return min(self._gpu_settings().values(), default=None)

    def _gpu_settings(self) -> dict[str, int]:
        rules, total = self._house.rules, self._gpu.total_bytes
        if total is None:
            return {}
        share = {"GPU_MEMORY_LIMIT_PERCENT": int(total * rules.max_gpu_memory_percent / 100)}
        limit = rules.max_gpu_memory_bytes
        return share if limit is None else {"GPU_MEMORY_LIMIT_MB": limit, **share}

    async def look(self, max_age_seconds: float) -> None:
        """Measures anew what is older; what is decided right after it is decided on this."""
        gpus = self._house.gpus
        if gpus:
            free, total = await asyncio.to_thread(gpus.free_bytes), self._gpu.total_bytes
            if total is None:
                total = await asyncio.to_thread(gpus.total_bytes)
            self._gpu = GpuMemory(total, free)
        await self._house.look(max_age_seconds)

    def snapshot(self, *, measured_only: bool = False) -> Snapshot:
        """What the scheduler decides on.

        measured_only: loaded models count with what they hold now, not with the most that they held.
        """
        claims = [claim for model in self._house.models() if (claim := self._claim(model, measured_only)) is not None]
        claimed = {claim.model_id for claim in claims}
        claims += [
            Claim(model_id, ModelState.UNLOADING, 0, gpu_bytes, frees_gpu_bytes=gpu_bytes)
            for model_id, gpu_bytes in self._gpu_returning.items()
            if model_id not in claimed
        ]
        return Snapshot(
            claims=claims,
            budget_bytes=self.limit_bytes(),
            gpu_budget_bytes=self.gpu_limit_bytes(),
            available_bytes=int(resources.machine_memory()["available_bytes"]),
            gpu_free_bytes=self._gpu.free_bytes,
            budget_settings=self._settings(),
            gpu_budget_settings=self._gpu_settings(),
        )

    def _claim(self, model: ManagedModel, measured_only: bool) -> Claim | None:
        """What one model holds or is promised; None when that is nothing."""
        model_id = model.model_id
        held, gpu_held = model.runtime.private_bytes or 0, model.runtime.gpu_bytes or 0
        if model.state is ModelState.UNLOADING or (model_id in self._going and model.state is ModelState.LOADED):
            return Claim(model_id, ModelState.UNLOADING, held, gpu_held, held, gpu_held)
        promised = self.promised.get(model_id) or self.kept.get(model_id)
        if promised is None and model.recovering and model.spec is not None:
            promised = self.wish(model.spec)  # its place is kept while it is on its way back
        policy, telemetry = self._house.rules.policy_of(model_id), self._house.telemetry
        is_joined = promised is not None and promised.joins  # another process of it is on its way
        if model.state is ModelState.LOADED and not is_joined:
            return Claim(
                model_id,
                ModelState.LOADED,
                bytes=held if measured_only else max(held, model.resident_bytes),
                gpu_bytes=gpu_held,
                frees_bytes=held,
                frees_gpu_bytes=gpu_held,
                pinned=policy.pinned,
                priority=policy.priority,
                in_flight=model.in_flight,
                idle_seconds=min(telemetry.idle_seconds(model_id), model.resident_seconds),
                resident_seconds=model.resident_seconds,
                usage_share=telemetry.usage_share(model_id),
                watched_minutes=telemetry.watched_minutes(model_id),
                reload_seconds=model.load_seconds,
                protected=self._house.protection_of(model_id),
            )
        if promised is None:
            return None
        return Claim(
            model_id,
            ModelState.LOADING,
            bytes=max(promised.bytes, held),
            gpu_bytes=max(promised.gpu_bytes, gpu_held),
            frees_bytes=held,
            frees_gpu_bytes=gpu_held,
            pinned=policy.pinned,
            priority=policy.priority,
        )

    def used_bytes(self) -> int:
        """What the models' processes hold, as measured last."""
        return sum(model.runtime.private_bytes or 0 for model in self._house.models())

    def facts(self) -> dict[str, Any]:
        """The sum for the heartbeat. reserved_bytes: promised to loads under way, beyond what they hold already."""
        claims = [c for m in self._house.models() if (c := self._claim(m, measured_only=True)) is not None]
        loading = [claim for claim in claims if claim.state is ModelState.LOADING]
        has_gpu = self._gpu.total_bytes is not None
        return {
            "budget_bytes": self.limit_bytes(),
            "used_bytes": self.used_bytes(),
            "reserved_bytes": sum(claim.bytes - claim.frees_bytes for claim in loading),
            "gpu_budget_bytes": self.gpu_limit_bytes(),
            "gpu_used_bytes": sum(m.runtime.gpu_bytes or 0 for m in self._house.models()) if has_gpu else None,
            "gpu_reserved_bytes": sum(c.gpu_bytes - c.frees_gpu_bytes for c in loading) if has_gpu else None,
            "gpu_free_bytes": self._gpu.free_bytes,
        }

    # What would happen

    async def prepare(self, spec: ModelSpec, *, forked: bool | None = None) -> None:
        """Estimates what a load may take that was never measured; looks into its files, so on a thread.

        forked: see `wish`.
        """
        model = self._house.model(spec.model_id)
        spec = model.with_measurements(spec)
        forked = self._house.forks(spec.framework) if forked is None else forked
        on_gpu = bool(self._house.gpus)
        measured = spec.peak_bytes if forked else model.cold_peak_bytes(spec)
        is_measured = measured is not None and (spec.gpu_bytes is not None or not on_gpu)
        if is_measured or self._estimates.get((spec.model_id, forked), ("",))[0] == spec.digest:
            return
        peak_bytes = await asyncio.to_thread(estimate.peak_bytes, spec, forked=forked, on_gpu=on_gpu)
        gpu_bytes = await asyncio.to_thread(estimate.gpu_bytes, spec) if on_gpu else 0
        self._estimates[spec.model_id, forked] = (spec.digest, Wish(spec.model_id, peak_bytes, gpu_bytes))

    def wish(
        self,
        spec: ModelSpec,
        *,
        protected: frozenset[str] = frozenset(),
        replaces: str | None = None,
        forked: bool | None = None,
        joins: bool = False,
    ) -> Wish:
        """The load of a model as the scheduler sees it: measured when these bytes were loaded here before, else by the
        estimate, which `prepare` made. joins: of one process more for a model that is loaded.

        forked: whether its process comes from its framework's zygote; None: as the framework's last one did. A cold
        start takes the framework's own memory, too, so the peak of a fork tells nothing of it; the peak of a cold
        start is an upper bound for a fork.
        """
        model = self._house.model(spec.model_id)
        spec = model.with_measurements(spec)
        forked = self._house.forks(spec.framework) if forked is None else forked
        _, estimated = self._estimates.get((spec.model_id, forked), ("", Wish(spec.model_id, 0)))
        measured = spec.peak_bytes if forked else model.cold_peak_bytes(spec)
        peak_bytes = max(estimated.bytes, spec.peak_bytes or 0) if measured is None else measured
        gpu_bytes = 0  # of all processes
        if self._house.gpus:
            gpu_bytes = estimated.gpu_bytes * spec.instances if spec.gpu_bytes is None else spec.gpu_bytes
        # Processes of one model are started one after the other: each peaks beside what the others hold by then.
        each_bytes = -(-(spec.resident_bytes or 0) // spec.instances) or peak_bytes
        held_bytes = (spec.instances - 1) * min(peak_bytes, each_bytes)
        if joins and model.crew is not None:
            held_bytes, gpu_held = model.runtime.private_bytes or 0, model.runtime.gpu_bytes or 0
            gpu_bytes = gpu_held + gpu_held // len(model.crew.processes)
        return Wish(
            model_id=spec.model_id,
            bytes=peak_bytes + held_bytes,
            gpu_bytes=gpu_bytes,
            priority=self._house.rules.policy_of(spec.model_id).priority,
            measured=measured is not None,
            protected=protected,
            replaces=replaces,
            joins=joins,
        )

    def decide(self, wish: Wish) -> Plan:
        """The plan for a wish as things stand now; nothing is touched."""
        return scheduler.decide(self.snapshot(), wish, min_residency_seconds=self._house.rules.min_residency_seconds)

    async def plan_load(self, spec: ModelSpec) -> Plan:
        """What a load would do."""
        await self.prepare(spec)
        await self.look(0.0)
        wish = self.wish(spec)
        if self._house.model(spec.model_id).state is ModelState.LOADED:
            # A wish for nothing: what the model holds is counted with the others.
            sentence = f"{spec.model_id} is loaded; nothing would change."
            plan = self.decide(Wish("", 0, measured=wish.measured))
            return replace(plan, model_id=spec.model_id, sentence=sentence)
        return self.decide(wish)

    async def plan_activation(self, spec: ModelSpec, live: str | None, *, allow_gap: bool) -> dict[str, Any]:
        """What an activation would do: the load's plan, with what it replaces and whether that has to go first. Then it
        is refused, as the activation itself is, unless a gap is allowed: that plan counts the live version as gone."""
        if live is None or live == spec.model_id or self._house.model(live).state is not ModelState.LOADED:
            return {**(await self.plan_load(spec)).to_message(), "replaces": live, "needs_gap": False}
        if self._house.model(spec.model_id).state is ModelState.LOADED:
            return {**(await self.plan_load(spec)).to_message(), "replaces": live, "needs_gap": False}
        await self.prepare(spec)
        await self.look(0.0)
        beside = self.decide(self.wish(spec, protected=frozenset({live})))
        if beside.decision is not Decision.REFUSED:
            return {**beside.to_message(), "replaces": live, "needs_gap": False}
        instead = self.decide(self.wish(spec, replaces=live))
        needs_gap = instead.decision is not Decision.REFUSED
        told = instead if needs_gap and allow_gap else beside
        return {**told.to_message(), "replaces": live, "needs_gap": needs_gap}

    async def plan_unload(self, model_id: str) -> dict[str, Any]:
        """What an unload would give back."""
        await self.look(0.0)
        model = self._house.model(model_id)
        await self._house.count(model)
        is_loaded = model.state is ModelState.LOADED
        frees = (model.runtime.private_bytes or 0) if is_loaded else 0
        in_flight = model.in_flight if is_loaded else 0
        if is_loaded:
            drains = f" after {in_flight} requests in flight" if in_flight else ""
            sentence = f"Unloading {model_id} gives back {frees / 2**20:.0f} MiB{drains}."
        else:
            sentence = f"{model_id} is {model.state.value}; an unload gives nothing back."
        return {
            "decision": "frees",
            "model_id": model_id,
            "frees_bytes": frees,
            "frees_gpu_bytes": (model.runtime.gpu_bytes or 0) if is_loaded else 0,
            "in_flight": in_flight,
            "sentence": sentence,
        }

    # What is made to happen

    @property
    def going(self) -> list[str]:
        """Models that are being unloaded to make room."""
        return sorted(self._going)

    def let_go(self, model_id: str, reason: str, cause: str) -> asyncio.Task[dict[str, Any]]:
        """Unloads a model that nobody asked to unload, and ends its wish; held here until it is done."""
        if model_id in self._going:
            return self._going[model_id]
        log.info("%s is unloaded: %s", model_id, reason)
        unload = self._house.model(model_id).unload(None, reason, ends_wish=True, cause=cause)
        task = self._going[model_id] = asyncio.get_running_loop().create_task(unload)
        if cause == "evicted":
            self._house.evicted(model_id)

        def gone(task: asyncio.Task[dict[str, Any]]) -> None:
            del self._going[model_id]
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("%s could not be unloaded", model_id, exc_info=error)
            self._on_changed()

        task.add_done_callback(gone)
        return task

    async def victims_now(self, choose: Callable[[], Iterable[Victim]]) -> list[Victim]:
        """Those whom `choose` names also after each was asked what it has in flight: a model that became busy
        meanwhile changes the choice. To be let go at once, before anything else is awaited."""
        asked: set[str] = set()
        while True:
            victims = list(choose())
            unasked = [victim.model_id for victim in victims if victim.model_id not in asked]
            if not unasked:
                return victims
            await asyncio.gather(*(self._house.count(self._house.model(model_id)) for model_id in unasked))
            asked.update(unasked)

    def gpu_left(self, model_id: str, gpu_bytes: int) -> None:
        """A process that held GPU memory is gone: what it held counts until NVML shows it free, or a deadline."""
        if not self._house.gpus:
            return
        self._gpu_returning[model_id] = gpu_bytes
        task = asyncio.get_running_loop().create_task(self._await_gpu(model_id, gpu_bytes, self._gpu.free_bytes or 0))
        self._gpu_waits.add(task)
        task.add_done_callback(self._gpu_waits.discard)

    async def _await_gpu(self, model_id: str, gpu_bytes: int, free_before: int) -> None:
        deadline = time.monotonic() + self._house.config.gpu_return_seconds
        try:
            while time.monotonic() < deadline:
                free = await asyncio.to_thread(self._house.gpus.free_bytes)
                self._gpu = replace(self._gpu, free_bytes=free)
                if free is None or free - free_before >= gpu_bytes * GPU_RETURNED_SHARE:
                    return
                await asyncio.sleep(GPU_LOOK_SECONDS)
            log.warning(
                "%d MiB that %s held on the GPU were not free %g s after its end",
                gpu_bytes / 2**20,
                model_id,
                self._house.config.gpu_return_seconds,
            )
        finally:
            self._gpu_returning.pop(model_id, None)
            self._on_changed()

    async def close(self) -> None:
        """Returns when nothing that was begun here runs any more; unloads are bounded by their drain."""
        for wait in self._gpu_waits:
            wait.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*self._gpu_waits, *self._going.values(), return_exceptions=True)


def limits(rules: Rules) -> Mapping[str, Any]:
    """The rules that hold, without those of single models and lineages: JSON values for the heartbeat."""
    return {name: getattr(rules, name) for name in rules.__slots__ if name not in ("models", "lineages")}
