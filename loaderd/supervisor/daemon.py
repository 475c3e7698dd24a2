"""The supervisor: takes commands, holds the models, reports what is true, and cleans up when it stops."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import platform
import secrets
import signal
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from loaderd.errors import (
    Cancelled,
    InsufficientMemory,
    LoaderdError,
    ModelNotLoaded,
    ShuttingDown,
    UnknownModel,
    from_message,
)
from loaderd.lifeline import become_subreaper
from loaderd.protocol import KeptAnswers, Lost, ModelSpec
from loaderd.reporter import AliasMoved, Heartbeat, OperationEnded, OperationProgress, Report, Reporter, Usage
from loaderd.resources import Gpus, ProcessMemory, host_facts, load_peak_of, machine_memory, memory_of
from loaderd.rules import Rules
from loaderd.scheduler import Decision, Wish
from loaderd.states import LoadPhase, ModelState
from loaderd.supervisor import model_process
from loaderd.supervisor.admission import FRESH_SECONDS, Admission
from loaderd.supervisor.budget import Budget, limits
from loaderd.supervisor.children import kernel_kills, reap_strangers
from loaderd.supervisor.config import DaemonConfig
from loaderd.supervisor.control import serve_control
from loaderd.supervisor.gateways import Gateways
from loaderd.supervisor.health import Health, Sign
from loaderd.supervisor.lineages import Lineages
from loaderd.supervisor.model import ManagedModel
from loaderd.supervisor.model_process import ModelProcess, OnPhase
from loaderd.supervisor.registry_tables import RegistryTables
from loaderd.supervisor.telemetry import Telemetry
from loaderd.supervisor.thrift import Thrift
from loaderd.supervisor.zygotes import ForkRefused, Zygotes

log = logging.getLogger(__name__)

REMEMBERED_OPERATIONS = 10_000
GPU_BYTES_SECONDS = 0.5  # one look at NVML serves all models that are measured within it
PREWARM_AFTER_SECONDS = 60.0
RETRY_REFUSED_SECONDS = 2.0
OWN_COMMAND = "own-"  # in place of an operation's id: the daemon's own wish, of which no row tells


class AlreadyRunning(Exception):
    """Another loaderd holds this run folder."""


@dataclass(frozen=True, slots=True)
class _Activation:
    """One under way or waiting for its lineage's turn. model_id: becomes live. why: those that take part must not go
    now, in words."""

    lineage: str
    model_id: str
    why: str


class Daemon:
    """One per installation. `run()` returns after SIGTERM or SIGINT, with nothing left behind."""

    def __init__(self, config: DaemonConfig, reporter: Reporter) -> None:
        self.config = config
        self.rules = Rules()
        self.gpus = Gpus()
        self._reporter = reporter
        self._zygotes = Zygotes()
        self._fork_refused: set[str] = set()  # frameworks whose zygote refused the last fork
        self._gateway = Gateways(
            config,
            self._table,
            self._answer_gateway,
            self.report,
            on_silent=self._on_silent,
            on_lost=self._on_lost,
            on_kept=self._on_kept,
        )
        self.health = Health(self.report, lambda: self.rules, self._end_hung)
        self.telemetry = Telemetry(self.report, config.sample_interval_seconds)
        self.lineages = Lineages(self)
        self._admission = Admission(lambda: self.rules, self.health.admitted)
        self.budget = self._admission.budget = Budget(self, self._admission.changed)
        self._thrift = Thrift(self, self.budget)
        self._registry = RegistryTables(reporter, config.rules_seconds, self._take_rules, self._gateway.set_access)
        self._gpu_bytes: Mapping[int, int | None] | None = None
        self._gpu_bytes_at = float("-inf")
        self._gpu_facts: list[dict[str, Any]] = []
        self._models: dict[str, ManagedModel] = {}
        # By operation id, oldest first.
        self._commands: OrderedDict[str, asyncio.Task[dict[str, Any]] | None] = OrderedDict()
        self._refused: dict[str, ModelSpec] = {}  # should be loaded and did not fit: tried again
        self._unloads: set[str] = set()  # operation ids of the unloads that run
        self._ending: dict[str, LoaderdError] = {}  # why a command's task was cancelled
        self._activations: dict[str, _Activation] = {}  # by operation id
        self._demands: dict[str, asyncio.Task[Any]] = {}  # loads that predictions wait for, by model_id
        self._looks: dict[tuple[str, str], asyncio.Task[None]] = {}  # questions to model processes, by kind and model
        self.stopping = asyncio.Event()
        self._boot_id = secrets.token_hex(8)
        self._started_at = time.time()
        self._optimised_at = time.monotonic()

    async def run(self) -> None:
        """Serves until told to stop. Raises AlreadyRunning; whatever the reporter's start raises."""
        config = self.config
        for folder in (config.run_dir, config.sockets_dir, config.model_logs_dir):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _exclusive(config):
            become_subreaper()
            for stale in config.sockets_dir.glob("*.sock"):
                stale.unlink(missing_ok=True)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.stopping.set)
            await self._look_at_gpus()
            wanted = await self._start_reporter()
            if wanted is None:
                return
            control = await serve_control(config.control_socket, self._handle)
            tasks = [
                asyncio.create_task(self._gateway.run()),
                asyncio.create_task(self._admission.run()),
                asyncio.create_task(self._every(config.heartbeat_seconds, self._heartbeat)),
                asyncio.create_task(self._every(config.heartbeat_seconds, self._look_at_gpus)),
                asyncio.create_task(self._every(config.usage_interval_seconds, self._count_all)),
                asyncio.create_task(self._every(config.memory_interval_seconds, self._observe_memory)),
                asyncio.create_task(self._every(config.door_interval_seconds, self._knock_at_all)),
                asyncio.create_task(self._every(config.idle_interval_seconds, self._give_back)),
                asyncio.create_task(self._every(RETRY_REFUSED_SECONDS, self._retry_refused)),
            ]
            try:
                await self._registry.follow()
                self._load_wanted(wanted)
                tasks.append(asyncio.create_task(self._keep_zygotes()))
                await self.stopping.wait()
            finally:
                await self._shut_down(control, tasks)

    async def _start_reporter(self) -> Sequence[ModelSpec] | None:
        """What should be loaded; None when the daemon was told to stop before the registry answered."""
        start = asyncio.wrap_future(self._reporter.start(self._facts()))
        stopped = asyncio.ensure_future(self.stopping.wait())
        either: set[asyncio.Future[Any]] = {start, stopped}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if start.done():
            stopped.cancel()
            return start.result()
        await asyncio.to_thread(self._reporter.close, 0.0)
        return None

    def _load_wanted(self, wanted: Sequence[ModelSpec]) -> None:
        """Loads what should be loaded, highest priority first. What does not fit is not made to fit at the cost of
        others that should be loaded as well and are worth no less."""
        priority = {spec.model_id: self.rules.policy_of(spec.model_id).priority for spec in wanted}
        for spec in sorted(wanted, key=lambda spec: -priority[spec.model_id]):
            at_least = frozenset(other for other in priority if priority[other] >= priority[spec.model_id])
            self._load_wished(spec, "wanted when loaderd started", at_least - {spec.model_id})

    def _load_wished(self, spec: ModelSpec, reason: str, protected: frozenset[str]) -> None:
        """Loads a model because it should be loaded. When it does not fit, it is tried again later."""
        model = self.model(spec.model_id)
        model.awaited = True
        self._accept(None, model.load(spec, None, reason, protected=protected), spec)

    async def _retry_refused(self) -> None:
        """Loads one of those that should be loaded and did not fit, when it fits now: nobody goes for it."""
        by_priority = sorted(self._refused.values(), key=lambda s: -self.rules.policy_of(s.model_id).priority)
        for spec in by_priority:
            await self.budget.prepare(spec)
            await self.budget.look(FRESH_SECONDS)
            model = self.model(spec.model_id)
            if self.stopping.is_set() or spec.model_id not in self._refused:
                continue
            if model.state in (ModelState.LOADED, ModelState.ERROR):
                del self._refused[spec.model_id]  # it came, or waits for a person
            elif model.state is ModelState.UNLOADED and not model.awaited:
                plan = self.budget.decide(self.budget.wish(spec))
                if plan.decision is Decision.FITS:
                    if not await self._is_still_wished(spec.model_id):
                        continue
                    if spec.model_id not in self._refused or model.state is not ModelState.UNLOADED or model.awaited:
                        continue  # a command came meanwhile
                    others = frozenset(self._models) - {spec.model_id}
                    self._load_wished(spec, "it should be loaded, and fits now", others)
                    return  # the next one is decided on when this one is counted
                self.health.refused(spec.model_id, plan.sentence)

    async def _is_still_wished(self, model_id: str) -> bool:
        """Whether the registry wishes a refused model loaded; one that it does not wish is forgotten. False, too, while
        the registry does not answer: it is asked again at the next try."""
        try:
            async with asyncio.timeout(self.config.rules_seconds):
                rows = await asyncio.wrap_future(self._reporter.index())
        except Exception as error:
            log.warning("the registry does not tell whether %s should be loaded: %s", model_id, str(error).strip())
            return False
        if any(row["model_id"] == model_id and row["wished"] for row in rows):
            return True
        log.info("%s did not fit, and nobody wishes it loaded any more", model_id)
        if self._refused.pop(model_id, None) is not None:
            self.health.dismissed(model_id)
        return False

    async def _keep_zygotes(self) -> None:
        """Zygotes that nobody waits for are started when what should be loaded is."""
        if not self.config.use_zygotes:
            return
        loads = [command for command in self._commands.values() if command is not None]
        if loads:
            await asyncio.wait(loads, timeout=PREWARM_AFTER_SECONDS)
        await self._zygotes.keep(self.config.prewarm)

    # What models, lineages, budget and gateway need of the house

    def report(self, report: Report) -> None:
        self._reporter.report(report)
        if isinstance(report, AliasMoved):
            self._registry.ask_rules(alias_moved=True)

    def progress(self, operation_id: str | None, model_id: str, phase: LoadPhase, share: float) -> None:
        if operation_id is not None:
            self.report(OperationProgress(operation_id, model_id, phase, share, time.time()))

    def model(self, model_id: str) -> ManagedModel:
        return self._models.setdefault(model_id, ManagedModel(model_id, self))

    def models(self) -> Iterable[ManagedModel]:
        return list(self._models.values())

    async def load(
        self,
        spec: ModelSpec,
        operation_id: str | None,
        reason: str,
        *,
        protected: frozenset[str] = frozenset(),
    ) -> dict[str, Any]:
        return await self.model(spec.model_id).load(spec, operation_id, reason, protected=protected)

    async def require_room_instead_of(self, live: str, spec: ModelSpec) -> None:
        await self.budget.prepare(spec)
        await self.budget.look(0.0)
        plan = self.budget.decide(self.budget.wish(spec, replaces=live))
        if plan.decision is Decision.REFUSED:
            raise InsufficientMemory(plan.sentence, **plan.to_message())

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
            self._refused.pop(model_id, None)
        return await self.model(model_id).unload(
            operation_id, reason, ends_wish=ends_wish, cause=cause, drain_seconds=drain_seconds
        )

    @contextmanager
    def place_kept(self, spec: ModelSpec) -> Iterator[None]:
        self.budget.kept[spec.model_id] = self.budget.wish(spec)
        try:
            yield
        finally:
            self.budget.kept.pop(spec.model_id, None)
            self._admission.changed()

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
            await self._await_import(spec.framework, tell)
        is_demanded = spec.model_id in self._demands

        def wish() -> Wish:
            kept = frozenset(self._models) if joins else protected  # the model serves: nobody goes for more of it
            return self.budget.wish(spec, protected=kept, forked=forked, joins=joins)

        async with self._admission.admitted(
            spec.model_id,
            wish,
            tell,
            self.rules.load_wait_seconds if is_demanded else spec.timeout_seconds,
            has_place=joins or self.model(spec.model_id).recovering or spec.model_id in self.budget.kept,
        ):
            yield

    async def _await_import(self, framework: str, tell: Callable[[str], None]) -> None:
        """Returns when a process can be forked at once: a load that waits for an import takes no turn and no memory
        from those that can begin. Raises ForkRefused."""
        if self._zygotes.is_ready(framework):
            return
        tell(f"waits for its turn: {framework} is being imported")
        try:
            await self._zygotes.ready(framework)
        except ForkRefused:
            self._fork_refused.add(framework)
            raise

    async def start_process(self, spec: ModelSpec, on_phase: OnPhase, *, forked: bool) -> ModelProcess:
        if not forked:
            return await model_process.start(spec, self.config, None, on_phase)
        try:
            process = await model_process.start(spec, self.config, self._zygotes, on_phase)
        except ForkRefused:
            self._fork_refused.add(spec.framework)
            raise
        self._fork_refused.discard(spec.framework)
        return process

    def forks(self, framework: str) -> bool:
        return self.config.use_zygotes and framework not in self._fork_refused

    async def publish_routes(self) -> None:
        await self._gateway.publish_routes()

    def push_routes(self) -> None:
        self._gateway.push_routes()
        self._admission.changed()  # it is called at each move of a model

    async def memory_of(self, pid: int) -> ProcessMemory | None:
        return await asyncio.to_thread(memory_of, pid)

    async def load_peak_of(self, pid: int) -> int | None:
        return await asyncio.to_thread(load_peak_of, pid)

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
        if model.state is not ModelState.LOADED:
            return
        counters = await model.count()
        if model.state is ModelState.LOADED:
            self.health.counted(model.model_id, counters)
            if counters is not None:
                runtime = model.runtime
                self.telemetry.counted(model.model_id, counters, runtime.private_bytes, runtime.gpu_bytes)

    def protection_of(self, model_id: str) -> str:
        for each in self._activations.values():
            if model_id == each.model_id or self.lineages.takes_part(each.lineage, model_id):
                return each.why
        return ""

    def loaded(self, model_id: str, canary: Mapping[str, Any] | None, load_seconds: float) -> None:
        self.health.loaded(model_id, canary, load_seconds)
        self._ask("count", model_id, self.count)  # its counters and memory are known from the first second on

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
        self._refused[spec.model_id] = spec
        self.health.refused(spec.model_id, message)

    def evicted(self, model_id: str) -> None:
        self.health.evicted(model_id)

    def _end_hung(self, model_id: str, why: str, sign: Sign) -> None:
        self.model(model_id).end_hung(why, sign)

    # Commands

    async def _handle(self, message: dict[str, Any]) -> dict[str, Any]:
        if self.stopping.is_set():
            raise ShuttingDown("loaderd is stopping; repeat the command when it runs again.")
        match message.get("command"):
            case "ping":
                return {
                    "pid": os.getpid(),
                    "boot_id": self._boot_id,
                    "started_at": self._started_at,
                    "inference": self._gateway.listening,
                }
            case "status":
                return {
                    "facts": self._facts(),
                    "models": {
                        name: {**model.snapshot(), "health": self.health.facts_of(name)}
                        for name, model in self._models.items()
                    },
                }
            case "load":
                spec = ModelSpec.from_message(message["spec"])
                operation_id = message["operation_id"]
                self.health.dismissed(spec.model_id)
                load = self.load(spec, operation_id, f"load asked for by {message['user']}")
                return self._accept(operation_id, load)
            case "unload":
                operation_id = message["operation_id"]
                model = self.model(message["model_id"])
                self.health.dismissed(model.model_id)
                self._refused.pop(model.model_id, None)
                if operation_id not in self._commands:
                    self._unloads.add(operation_id)
                return self._accept(operation_id, model.unload(operation_id, f"unload asked for by {message['user']}"))
            case "activate":
                return self._accept(message["operation_id"], self._activate(message))
            case "optimize":
                return self._accept(message["operation_id"], self._thrift.optimise(pressure_percent=None))
            case "plan":
                return await self._plan(message)
            case "metrics":
                return {"text": self._metrics()}
            case "forget_answers":
                return {"forgotten": await self._gateway.forget_answers(message["model_id"])}
            case "cancel":
                operation_id = message["operation_id"]  # half an unload is a lie, so those are finished
                return {"cancelled": operation_id not in self._unloads and self._cancel(operation_id)}
            case other:
                raise LoaderdError(f"loaderd has no command {other!r}.")

    async def _plan(self, message: dict[str, Any]) -> dict[str, Any]:
        """What a command would do; nothing is touched."""
        match message["action"]:
            case "load":
                spec = ModelSpec.from_message(message["spec"])
                return (await self.budget.plan_load(spec)).to_message()
            case "activate":
                spec = ModelSpec.from_message(message["spec"])
                live = self.lineages.live_of(spec.lineage)
                return await self.budget.plan_activation(spec, live, allow_gap=bool(message.get("allow_gap")))
            case "unload":
                return await self.budget.plan_unload(message["model_id"])
            case "optimize":
                return await self._thrift.plan()
            case other:
                raise LoaderdError(f"loaderd plans load, unload, activate and optimize, not {other!r}.")

    async def _activate(self, message: dict[str, Any]) -> dict[str, Any]:
        spec, operation_id = ModelSpec.from_message(message["spec"]), message["operation_id"]
        self.health.dismissed(spec.model_id)
        kind = message["kind"]
        why = f"{'a rollback' if kind == 'rollback' else 'an activation'} of {spec.lineage} is under way"
        self._activations[operation_id] = _Activation(spec.lineage, spec.model_id, why)
        try:
            return await self.lineages.activate(
                spec,
                operation_id,
                user=message["user"],
                kind=kind,
                reason=message["reason"],
                allow_gap=message["allow_gap"],
            )
        finally:
            del self._activations[operation_id]
            self._admission.changed()
            self._registry.ask_rules(alias_moved=True)  # what came meanwhile was not followed

    def _accept(
        self, operation_id: str | None, command: Coroutine[Any, Any, dict[str, Any]], wished: ModelSpec | None = None
    ) -> dict[str, Any]:
        """Runs a command in the background, once: a redelivered operation is not run again.

        wished: what the daemon loads of its own accord, because it should be loaded.
        """
        name = operation_id or OWN_COMMAND + secrets.token_hex(4)
        if name in self._commands:
            command.close()
            return {"accepted": True, "known": True}
        task = self._commands[name] = asyncio.get_running_loop().create_task(command)
        # A callback: a task that is cancelled before its first step runs nothing of its own.
        task.add_done_callback(lambda task: self._end_command(name, task, wished))
        while len(self._commands) > REMEMBERED_OPERATIONS and next(iter(self._commands.values())) is None:
            self._commands.popitem(last=False)
        return {"accepted": True, "known": False}

    def _end_command(self, name: str, task: asyncio.Task[dict[str, Any]], wished: ModelSpec | None) -> None:
        """Ends a command's operation, the only place that does."""
        self._commands[name] = None
        self._unloads.discard(name)
        result: dict[str, Any] | None = None
        error: LoaderdError | None = None
        try:
            result = task.result()
        except asyncio.CancelledError:
            error = self._ending.pop(name, None) or Cancelled("The operation was cancelled.")
        except LoaderdError as failure:
            error = failure
            if wished is not None and isinstance(failure, InsufficientMemory):
                self.refused(wished, failure.message)
        except Exception as unexpected:
            log.exception("the operation %s failed", name)
            error = LoaderdError(f"loaderd could not run the operation: {unexpected}; its log says more.")
        if wished is not None:
            self.model(wished.model_id).awaited = False
            self.push_routes()
        if not name.startswith(OWN_COMMAND):
            self.report(OperationEnded(name, time.time(), result, error.to_message() if error else None))

    def _cancel(self, operation_id: str, why: LoaderdError | None = None) -> bool:
        task = self._commands.get(operation_id)
        if task is None or task.done():
            return False
        if task.cancelling():
            return True  # once: a second cancel would hit the clean-up of the first
        if why is not None:
            self._ending[operation_id] = why
        task.cancel()
        return True

    # The gateway's side

    def _table(self) -> dict[str, Any]:
        return {
            "models": {name: model.route() for name, model in self._models.items() if model.spec is not None},
            "lineages": self.lineages.table(),
            "settings": {
                "load_wait_seconds": self.rules.load_wait_seconds,
                "sampling_rate": self.rules.sampling_rate,
                "slow_request_seconds": self.rules.slow_request_seconds,
                "cache_max_bytes": self.rules.cache_max_bytes // max(1, self.config.gateway_processes),  # of each
            },
        }

    async def _answer_gateway(self, message: dict[str, Any]) -> Any:
        match message["command"]:
            case "load" | "unload" as kind:
                return await asyncio.wrap_future(self._reporter.submit(kind, message["model_id"], message["user"]))
            case "demand":
                return await self._demand(message["model_id"], message["user"])
            case "index":
                rows = await asyncio.wrap_future(self._reporter.index())
                return [{**row, "autoload": self.rules.policy_of(row["model_id"]).autoload} for row in rows]
            case "metrics":
                return self._metrics()
            case "statistics":
                return await self._statistics(frozenset(message["model_ids"]))
            case other:
                raise UnknownModel(f"The gateway asked for {other!r}, which loaderd does not know.")

    async def _demand(self, model_id: str, user: str) -> dict[str, Any]:
        """Returns when the model that a prediction waits for is loaded; raises why it could not be. All that ask at
        the same time share one load, which goes on when one of them stops waiting."""
        task = self._demands.get(model_id)
        if task is None:
            task = self._demands[model_id] = asyncio.get_running_loop().create_task(self._satisfy(model_id, user))

            def done(task: asyncio.Task[None]) -> None:
                del self._demands[model_id]
                if not task.cancelled():
                    task.exception()  # read here: nobody may be waiting any more

            task.add_done_callback(done)
        await asyncio.shield(task)
        return {"model_id": model_id, "state": ModelState.LOADED.value}

    async def _satisfy(self, model_id: str, user: str) -> None:
        model = self.model(model_id)
        await model.settled()  # a restart or a load that is under way may be all that it takes
        if model.state is ModelState.LOADED:
            return
        if model.state is ModelState.ERROR or not self.rules.policy_of(model_id).autoload:
            # One that failed waits for a person: predictions would have it fail again and again.
            because = model.reason or "it was not loaded since loaderd started."
            raise ModelNotLoaded(
                f"{model_id} is {model.state.value} and is not loaded for a prediction: {because}",
                model_id=model_id,
                state=model.state.value,
            )
        answer = await asyncio.wrap_future(self._reporter.submit("demand", model_id, user))
        if answer.get("error"):
            error = from_message(answer["error"])
            if isinstance(error, InsufficientMemory):
                self.health.refused(model_id, error.message)
            raise error
        if answer["state"] != ModelState.LOADED:
            raise ModelNotLoaded(
                f"{model_id} was loaded for a prediction and is {answer['state']} by now; repeat the request.",
                model_id=model_id,
            )

    async def _statistics(self, model_ids: Collection[str]) -> dict[str, Any]:
        """What the processes of these models counted by now and hold, by model_id; of those that are loaded."""
        models = [each for each in self.models() if each.model_id in model_ids and each.state is ModelState.LOADED]
        await asyncio.gather(*(self.count(model) for model in models))  # one that does not answer tells its last ones
        return {
            model.model_id: {
                "counters": model.crew.counters,
                "private_bytes": model.runtime.private_bytes,
                "gpu_bytes": model.runtime.gpu_bytes,
            }
            for model in models
            if model.crew is not None
        }

    def _metrics(self) -> str:
        return self.telemetry.exposition({name: model.snapshot() for name, model in self._models.items()})

    def _take_rules(self, rules: Rules, is_newer_than_moves: bool) -> None:
        """Works by these rules from now on."""
        self.rules = rules
        logging.getLogger().setLevel(rules.log_level)
        if is_newer_than_moves:
            # Of a lineage whose alias is being moved, what is known here is newer.
            moving = {activation.lineage for activation in self._activations.values()}
            own = {name: traffic for name, traffic in self.lineages.traffic.items() if name in moving}
            self.lineages.follow({**rules.lineages, **own})
        self._admission.changed()
        self._gateway.push_routes()

    # What is observed, again and again

    async def _every(self, seconds: float, observe: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            try:
                await observe()
            except Exception:
                log.exception("%s failed; it is tried again", observe.__name__)
            await asyncio.sleep(seconds)

    def _ask(self, kind: str, model_id: str, ask: Callable[[ManagedModel], Coroutine[Any, Any, None]]) -> None:
        """Puts a question to a model's process in the background, unless the last one of its kind is still open: one
        that does not answer holds up nobody else."""
        if (kind, model_id) in self._looks or self.stopping.is_set():
            return
        task = self._looks[kind, model_id] = asyncio.get_running_loop().create_task(ask(self.model(model_id)))

        def done(task: asyncio.Task[None]) -> None:
            del self._looks[kind, model_id]
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("%s could not be asked for its %s", model_id, kind, exc_info=error)

        task.add_done_callback(done)

    async def _heartbeat(self) -> None:
        kernel_kills.look()
        facts = self._facts()
        budget = facts["budget"]
        self.health.memory(budget["used_bytes"], budget["budget_bytes"])
        self.telemetry.host(
            budget["used_bytes"],
            budget["reserved_bytes"],
            budget["budget_bytes"],
            facts["memory"]["available_bytes"],
            budget["gpu_used_bytes"],
        )
        self.health.tick()
        self.telemetry.tick()
        for model_id in self.health.due():
            self._ask("canary", model_id, self._check_canary)
        runtimes = {name: m.runtime for name, m in self._models.items() if m.state is ModelState.LOADED}
        self.report(Heartbeat(time.time(), facts, runtimes))
        if self._zygotes.births == 0:
            reap_strangers()

    async def _look_at_gpus(self) -> None:
        """Apart from the heartbeat, which a driver that does not answer would hold up."""
        if self.gpus:
            self._gpu_facts = await asyncio.to_thread(self.gpus.facts)

    async def _check_canary(self, model: ManagedModel) -> None:
        crew, result = model.crew, None
        if crew is not None and model.state is ModelState.LOADED:
            with contextlib.suppress(TimeoutError, LoaderdError):
                async with asyncio.timeout(self.rules.hang_seconds):
                    result = await crew.canary()
        if model.crew is crew:
            self.health.checked(model.model_id, result)

    async def _count_all(self) -> None:
        for model in self.models():
            if model.state is ModelState.LOADED:
                self._ask("count", model.model_id, self.count)

    async def _knock_at_all(self) -> None:
        for model in self.models():
            if model.state is ModelState.LOADED:
                self._ask("door", model.model_id, self._knock)

    async def _knock(self, model: ManagedModel) -> None:
        crew = model.crew
        answers = await model.door_answers()
        if model.crew is crew:
            self.health.knocked(model.model_id, answers)

    def _on_silent(self, model_id: str, data_socket: str) -> None:
        """A client did not get through to a model's process: is that so?"""
        crew = self.model(model_id).crew
        if crew is not None and data_socket in crew.sockets:
            self._ask("door", model_id, self._knock)

    def _on_lost(self, lost: Lost) -> None:
        """Requests that ended in an error, and that no process could count."""
        self.report(
            Usage(
                model_id=lost.model_id,
                requests=lost.requests,
                items=0,
                errors=lost.requests,
                latency_seconds=lost.latency_seconds,
                last_at=lost.at,
                # What ended the process says more than that it ended.
                last_error=self.model(lost.model_id).newest_death or lost.error,
            )
        )
        self.telemetry.lost(lost)
        self.health.lost(lost.model_id, lost.requests)

    def _on_kept(self, kept: KeptAnswers) -> None:
        """What the gateway's cache did for a model."""
        if kept.hits or kept.shared or kept.misses:
            self.report(
                Usage(
                    model_id=kept.model_id,
                    requests=0,
                    items=0,
                    errors=0,
                    latency_seconds=0.0,
                    last_at=kept.at,
                    cache_hits=kept.hits + kept.shared,
                    cache_misses=kept.misses,
                )
            )
        self.telemetry.kept(kept)

    async def _observe_memory(self) -> None:
        await self.budget.look(0.0)
        await self._thrift.correct()
        self._admission.changed()

    async def _give_back(self) -> None:
        await self._thrift.end_idle()
        if time.monotonic() - self._optimised_at >= self.rules.optimization_interval_seconds:
            self._optimised_at = time.monotonic()
            await self._thrift.optimise(pressure_percent=self.rules.alert_memory_percent)

    def _facts(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "boot_id": self._boot_id,
            "started_at": self._started_at,
            "python": platform.python_version(),
            "host": host_facts(),
            "memory": machine_memory(),
            "budget": self.budget.facts(),
            "limits": limits(self.rules),
            "gpus": self._gpu_facts,
            "no_gpu_reason": self.gpus.reason_for_none,
            "zygotes": self._zygotes.facts(),
            "inference": self._gateway.listening,
        }

    # The end

    async def _shut_down(self, control: asyncio.Server, tasks: list[asyncio.Task[None]]) -> None:
        """Drains and unloads everything within a bound; what people wanted loaded stays wanted."""
        log.info("loaderd stops: %d models are drained", sum(m.crew is not None for m in self._models.values()))
        self.stopping.set()
        control.close()
        self._registry.close()
        questions = [*self._demands.values(), *self._looks.values()]
        for question in questions:
            question.cancel()
        for name, command in list(self._commands.items()):
            if command is not None and name not in self._unloads:  # those are bounded, and half an unload is a lie
                self._cancel(name, ShuttingDown("loaderd was stopped before the operation was done; repeat it."))
        # All at once, so that the whole stop stays within one drain: a model's own lock puts them in order.
        running = [command for command in self._commands.values() if command is not None]
        unloads = [model.unload(None, "loaderd was stopped") for model in self._models.values()]
        await asyncio.gather(*running, *unloads, *questions, return_exceptions=True)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.budget.close()
        await asyncio.gather(*(model.close() for model in self._models.values()))
        await self._zygotes.stop()
        self.gpus.close()
        self.config.control_socket.unlink(missing_ok=True)
        if not await asyncio.to_thread(self._reporter.close, self.config.close_seconds):
            log.error("not everything could be written to the registry before loaderd stopped")


@contextlib.contextmanager
def _exclusive(config: DaemonConfig) -> Any:
    """Holds the run folder's lock; the kernel lets it go with the process, however that ends."""
    with (config.run_dir / "loaderd.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(
                f"Another loaderd runs with {config.run_dir}; stop it, or set another MODELHUB_STATE_DIR."
            ) from None
        yield
