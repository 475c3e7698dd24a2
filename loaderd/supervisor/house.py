"""What all parts of the daemon share: its models, its rules, and what models, lineages and the budget need of it."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from loaderd.errors import InsufficientMemory
from loaderd.protocol import ModelSpec
from loaderd.reporter import AliasMoved, OperationProgress, Report, Reporter
from loaderd.resources import Gpus, ProcessMemory, host_facts, load_peak_of, machine_memory, memory_of
from loaderd.rules import Rules
from loaderd.scheduler import Decision, Wish
from loaderd.states import LoadPhase
from loaderd.supervisor.activations import Activations
from loaderd.supervisor.admission import Admission
from loaderd.supervisor.budget import Budget, limits
from loaderd.supervisor.config import DaemonConfig
from loaderd.supervisor.forking import Forking
from loaderd.supervisor.gateways import Gateways
from loaderd.supervisor.health import Health, Sign
from loaderd.supervisor.lineages import Lineages
from loaderd.supervisor.model.managed import ManagedModel
from loaderd.supervisor.model_process import ModelProcess, OnPhase
from loaderd.supervisor.questions import Questions
from loaderd.supervisor.registry_tables import RegistryTables
from loaderd.supervisor.telemetry import Telemetry
from loaderd.supervisor.thrift import Thrift

GPU_BYTES_SECONDS = 0.5  # one look at NVML serves all models that are measured within it


class House:
    """A ModelHouse, a LineageHouse and a BudgetHouse; what their methods mean is said there.

    gateway: given by the daemon. unfit: models that should be loaded and did not fit: tried again. demanded: models
    that predictions wait for. gpu_facts: as of the last look.
    """

    gateway: Gateways

    def __init__(self, config: DaemonConfig, reporter: Reporter) -> None:
        self.config = config
        self.rules = Rules()
        self.stopping = asyncio.Event()
        self.boot_id = secrets.token_hex(8)
        self.started_at = time.time()
        self.gpus = Gpus()
        self.gpu_facts: list[dict[str, Any]] = []
        self.unfit: dict[str, ModelSpec] = {}
        self.demanded: set[str] = set()
        self._reporter = reporter
        self._models: dict[str, ManagedModel] = {}
        self._gpu_bytes: Mapping[int, int | None] | None = None
        self._gpu_bytes_at = float("-inf")
        self.forking = Forking(config)
        self.health = Health(self.report, lambda: self.rules, self._end_hung)
        self.telemetry = Telemetry(self.report, config.sample_interval_seconds)
        self.questions = Questions(self.health, self.telemetry, lambda: self.rules, self.stopping)
        self.lineages = Lineages(self)
        self.activations = Activations(self.lineages, self.health, self._on_activated)
        self.admission = Admission(lambda: self.rules, self.health.admitted)
        self.budget = self.admission.budget = Budget(self, self.admission.changed)
        self.thrift = Thrift(self, self.budget)
        self.registry = RegistryTables(
            reporter, config.rules_seconds, self._take_rules, lambda access: self.gateway.set_access(access)
        )

    def model(self, model_id: str) -> ManagedModel:
        model = self._models.get(model_id)
        if model is None:
            model = self._models[model_id] = ManagedModel(model_id, self)
        return model

    def models(self) -> Iterable[ManagedModel]:
        return list(self._models.values())

    def facts(self) -> dict[str, Any]:
        """Of the daemon, for its heartbeat and the status command: JSON values."""
        return {
            "pid": os.getpid(),
            "boot_id": self.boot_id,
            "started_at": self.started_at,
            "python": platform.python_version(),
            "host": host_facts(),
            "memory": machine_memory(),
            "budget": self.budget.facts(),
            "limits": limits(self.rules),
            "gpus": self.gpu_facts,
            "no_gpu_reason": self.gpus.reason_for_none,
            "zygotes": self.forking.zygotes.facts(),
            "inference": self.gateway.listening,
        }

    def metrics(self) -> str:
        return self.telemetry.exposition({model.model_id: model.snapshot() for model in self.models()})

    # What is told

    def report(self, report: Report) -> None:
        self._reporter.report(report)
        if isinstance(report, AliasMoved):
            self.registry.ask_rules(alias_moved=True)

    def progress(self, operation_id: str | None, model_id: str, phase: LoadPhase, share: float) -> None:
        if operation_id is not None:
            self.report(OperationProgress(operation_id, model_id, phase, share, time.time()))

    async def publish_routes(self) -> None:
        await self.gateway.publish_routes()

    def push_routes(self) -> None:
        self.gateway.push_routes()
        self.admission.changed()  # it is called at each move of a model

    def _take_rules(self, rules: Rules, is_newer_than_moves: bool) -> None:
        """Works by these rules from now on."""
        self.rules = rules
        logging.getLogger().setLevel(rules.log_level)
        if is_newer_than_moves:
            # Of a lineage whose alias is being moved, what is known here is newer.
            moving = self.activations.lineages
            own = {name: traffic for name, traffic in self.lineages.traffic.items() if name in moving}
            self.lineages.follow({**rules.lineages, **own})
        self.admission.changed()
        self.gateway.push_routes()

    def _on_activated(self) -> None:
        self.admission.changed()
        self.registry.ask_rules(alias_moved=True)  # what came meanwhile was not followed

    # Loads and unloads

    async def load(
        self,
        spec: ModelSpec,
        operation_id: str | None,
        reason: str,
        *,
        protected: frozenset[str] = frozenset(),
    ) -> dict[str, Any]:
        return await self.model(spec.model_id).load(spec, operation_id, reason, protected=protected)

    async def unload(
        self,
        model_id: str,
        operation_id: str | None,
        reason: str,
        *,
        ends_wish: bool,
        cause: str,
        drain_seconds: float | None = None,
    ) -> dict[str, Any]:
        if ends_wish:
            self.unfit.pop(model_id, None)
        return await self.model(model_id).unload(
            operation_id, reason, ends_wish=ends_wish, cause=cause, drain_seconds=drain_seconds
        )

    async def require_room_instead_of(self, live: str, spec: ModelSpec) -> None:
        await self.budget.prepare(spec)
        await self.budget.look(0.0)
        plan = self.budget.decide(self.budget.wish(spec, replaces=live))
        if plan.decision is Decision.REFUSED:
            raise InsufficientMemory(plan.sentence, **plan.to_message())

    @contextmanager
    def place_kept(self, spec: ModelSpec) -> Iterator[None]:
        self.budget.kept[spec.model_id] = self.budget.wish(spec)
        try:
            yield
        finally:
            self.budget.kept.pop(spec.model_id, None)
            self.admission.changed()

    @asynccontextmanager
    async def admitted(
        self,
        spec: ModelSpec,
        tell: Callable[[str], None],
        *,
        protected: frozenset[str],
        forked: bool,
        joins: bool = False,
    ) -> AsyncIterator[None]:
        await self.budget.prepare(spec, forked=forked)
        if forked:
            await self.forking.await_import(spec.framework, tell)
        is_demanded = spec.model_id in self.demanded

        def wish() -> Wish:
            kept = frozenset(self._models) if joins else protected  # the model serves: nobody goes for more of it
            return self.budget.wish(spec, protected=kept, forked=forked, joins=joins)

        async with self.admission.admitted(
            spec.model_id,
            wish,
            tell,
            self.rules.load_wait_seconds if is_demanded else spec.timeout_seconds,
            has_place=joins or self.model(spec.model_id).recovering or spec.model_id in self.budget.kept,
        ):
            yield

    async def start_process(self, spec: ModelSpec, on_phase: OnPhase, *, forked: bool) -> ModelProcess:
        return await self.forking.start_process(spec, on_phase, forked=forked)

    def forks(self, framework: str) -> bool:
        return self.forking.is_expected(framework)

    def protection_of(self, model_id: str) -> str:
        return self.activations.protection_of(model_id)

    # What processes hold

    async def memory_of(self, pid: int) -> ProcessMemory | None:
        return await asyncio.to_thread(memory_of, pid)

    async def load_peak_of(self, pid: int) -> int | None:
        return await asyncio.to_thread(load_peak_of, pid)

    async def look_at_gpus(self) -> None:
        if self.gpus:
            self.gpu_facts = await asyncio.to_thread(self.gpus.facts)

    async def gpu_bytes_of(self, pid: int) -> int | None:
        if not self.gpus:
            return None
        if time.monotonic() - self._gpu_bytes_at > GPU_BYTES_SECONDS:
            self._gpu_bytes = await asyncio.to_thread(self.gpus.bytes_by_pid)
            self._gpu_bytes_at = time.monotonic()
        return self.gpus.bytes_of(pid, self._gpu_bytes)

    def gpu_left(self, model_id: str, gpu_bytes: int) -> None:
        self.budget.gpu_left(model_id, gpu_bytes)

    async def look(self, max_age_seconds: float) -> None:
        old = time.monotonic() - max_age_seconds
        await asyncio.gather(*(model.observe() for model in self.models() if model.observed_at <= old))

    async def count(self, model: ManagedModel) -> None:
        await self.questions.count(model)

    # What health and telemetry follow

    def loaded(self, model_id: str, canary: Mapping[str, Any] | None, load_seconds: float) -> None:
        self.health.loaded(model_id, canary, load_seconds)
        self.questions.ask_counters(self.model(model_id))  # they and its memory are known from the first second on

    def left(self, model_id: str, counters: Mapping[str, Any]) -> None:
        self.health.left(model_id)
        self.telemetry.left(model_id, counters)

    def died(self, model_id: str, attempt: int, gave_up: bool) -> None:
        self.health.died(model_id, attempt, gave_up)

    def survived(self, model_id: str) -> None:
        self.health.survived(model_id)

    def is_short(self, model_id: str, why: str, *, refused: bool) -> None:
        self.health.is_short(model_id, why, refused=refused)

    def stays_short(self, model_id: str, why: str) -> None:
        self.health.stays_short(model_id, why)

    def gave_up(self, model_id: str, why: str) -> None:
        self.health.gave_up(model_id, why)

    def refused(self, spec: ModelSpec, message: str) -> None:
        self.unfit[spec.model_id] = spec
        self.health.refused(spec.model_id, message)

    def evicted(self, model_id: str) -> None:
        self.health.evicted(model_id)

    def _end_hung(self, model_id: str, why: str, sign: Sign) -> None:
        self.model(model_id).end_hung(why, sign)
