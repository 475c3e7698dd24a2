"""One model version and its moves: the only place where its state changes. Commands for it run one at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from loaderd.errors import InsufficientMemory, LoaderdError, LoadFailed, ModelTimeout
from loaderd.protocol import ModelSpec
from loaderd.reporter import ModelRuntime, OperationProgress, Report, StateReport, Usage
from loaderd.resources import ProcessMemory
from loaderd.rules import Rules
from loaderd.states import TRANSITIONS, LoadPhase, ModelState
from loaderd.supervisor.config import DaemonConfig
from loaderd.supervisor.crew import Crew
from loaderd.supervisor.health import Sign
from loaderd.supervisor.model_process import ModelProcess, OnPhase
from loaderd.supervisor.recovery import Restart, Restarts
from loaderd.supervisor.zygotes import ForkRefused

log = logging.getLogger(__name__)

Result = TypeVar("Result")

REFILL_SECONDS = 2.0  # until memory for one more process is asked for again
DEATH_NEWS_SECONDS = 10.0  # in which lost requests are put down to a death
_ROUTED = ("inputs", "outputs", "labels")  # what the door tells of a signature


class House(Protocol):
    """What a model needs of the daemon around it.

    admitted: waits for the model's framework to be imported (with forked=True), then for its turn and its memory, and
    holds both for the length of the block; `tell` is called with what it waits for; joins: for one process more of a
    loaded model, for which no other model has to go. Raises InsufficientMemory, and
    ForkRefused when there is no zygote to fork from. start_process: raises ForkRefused when its framework's zygote
    cannot make it; not with forked=False, which takes more memory. loaded, left, died, survived, is_short, stays_short,
    gave_up, refused: what health and telemetry follow.
    """

    config: DaemonConfig
    rules: Rules
    stopping: asyncio.Event

    def report(self, report: Report) -> None: ...
    def admitted(
        self,
        spec: ModelSpec,
        tell: Callable[[str], None],
        *,
        protected: frozenset[str],
        forked: bool,
        joins: bool = False,
    ) -> AbstractAsyncContextManager[None]: ...
    async def start_process(self, spec: ModelSpec, on_phase: OnPhase, *, forked: bool) -> ModelProcess: ...
    async def publish_routes(self) -> None: ...
    def push_routes(self) -> None: ...
    async def memory_of(self, pid: int) -> ProcessMemory | None: ...
    async def load_peak_of(self, pid: int) -> int | None: ...
    async def gpu_bytes_of(self, pid: int) -> int | None: ...
    def gpu_left(self, model_id: str, gpu_bytes: int) -> None: ...
    def loaded(self, model_id: str, canary: Mapping[str, Any] | None, load_seconds: float) -> None: ...
    def left(self, model_id: str, counters: Mapping[str, Any]) -> None: ...
    def died(self, model_id: str, attempt: int, gave_up: bool) -> None: ...
    def survived(self, model_id: str) -> None: ...
    def is_short(self, model_id: str, why: str, *, refused: bool) -> None: ...
    def stays_short(self, model_id: str, why: str) -> None: ...
    def gave_up(self, model_id: str, why: str) -> None: ...
    def refused(self, spec: ModelSpec, message: str) -> None: ...


class ManagedModel:
    """A model version that the daemon was told of.

    recovering: its process died and another one is on its way. awaited: it is loaded because it should be loaded, so
    requests wait for it as they do for a restart. resident_bytes: the most that it held while it
    served. load_seconds: of its last load.
    """

    def __init__(self, model_id: str, house: House) -> None:
        self.model_id = model_id
        self.state = ModelState.UNLOADED
        self.reason = ""
        self.spec: ModelSpec | None = None
        self.crew: Crew | None = None
        self.runtime = ModelRuntime()
        self.signature: dict[str, Any] | None = None
        self.recovering = False
        self.awaited = False
        self.resident_bytes = 0
        self.load_seconds = 0.0
        self.observed_at = float("-inf")
        self._house = house
        self._lock = asyncio.Lock()
        self._moved = asyncio.Event()
        self._serving = False
        self._loaded_at = 0.0
        self._load_name = ""  # of these bytes and this load: no answer outlives either
        self._restarts = Restarts(
            house.config.restart_pause_seconds, house.config.max_restart_pause_seconds, house.config.stable_seconds
        )
        self._recovery: asyncio.Task[None] | None = None
        self._refilling: asyncio.Task[None] | None = None  # of several processes some died
        self._counted: tuple[float, Restart | None] = (float("-inf"), None)  # the newest death, and what follows it
        self._taken_over = asyncio.Event()  # somebody's load waits for the recovery's attempt: it makes no more
        self._loads = 0  # that somebody asked for, under way or waiting for their turn
        self._owed: tuple[ModelSpec, Restart] | None = None  # of a process that died, until it is loaded or given up
        self._death: tuple[float, str] = (float("-inf"), "")  # of a process of it: when, and how
        self._background: set[asyncio.Task[None]] = set()  # held: the event loop would forget them
        self._reported: dict[str, Any] = {}  # the counters as of the last usage report
        self._measured: ModelSpec | None = None  # the spec with what the last load of it was measured at
        self._cold_peak: tuple[tuple[str, str], int] | None = None  # of the last load that was no fork; see _memory_key

    async def load(
        self,
        spec: ModelSpec,
        operation_id: str | None,
        reason: str,
        *,
        protected: frozenset[str] = frozenset(),
    ) -> dict[str, Any]:
        """Loads the model, or confirms that it is loaded: {"model_id", "status", "load_seconds", "private_bytes",
        "gpu_bytes"}. A process that dies by a signal meanwhile is started again, up to max_load_attempts.

        Raises LoaderdError; then the model is in error, or unloaded as before when it did not fit. A recovery is
        taken over: its pause ends at once, an attempt under way is joined. Cancelling the task ends the process and
        leaves the model unloaded, and a recovery that was taken over goes on. protected: see scheduler.Wish.
        """
        self._loads += 1
        try:
            await self._take_over_recovery()
            async with self._lock:
                if self.state is ModelState.LOADED:
                    return self._load_result()
                self._taken_over.clear()
                self._restarts.begin(tried=1)
                result = await self._load(spec, operation_id, reason, protected=protected)
                self._restarts.begin()
                return result
        except asyncio.CancelledError:
            self._go_on_recovering()
            raise
        except LoaderdError as error:
            owed, self._owed = self._owed, None
            if owed is not None and isinstance(error, InsufficientMemory):
                self._house.refused(owed[0], error.message)  # as the recovery would have been
            raise
        finally:
            self._loads -= 1

    async def unload(
        self,
        operation_id: str | None,
        reason: str,
        *,
        ends_wish: bool = False,
        cause: str = "",
        drain_seconds: float | None = None,
    ) -> dict[str, Any]:
        """Finishes what is in flight, ends the process, measures what came back: {"model_id", "status": "unloaded",
        "freed_bytes"}, or "not_loaded". A recovery is ended. A load under way is waited for. Once begun it is finished:
        a cancellation is raised when the model is unloaded.

        ends_wish, cause: see StateReport. drain_seconds: how long what is in flight may take.
        """
        await self.end_recovery()
        async with self._lock:
            self._owed = None
            await self.end_recovery()  # a load that was cancelled before this turn may have begun it again
            crew = self.crew
            if self.state is not ModelState.LOADED or crew is None:
                if self.state is ModelState.ERROR or (ends_wish and self.state is ModelState.UNLOADED):
                    self._move(ModelState.UNLOADED, reason, operation_id, ends_wish=ends_wish, cause=cause)
                return {"model_id": self.model_id, "status": "not_loaded"}
            self._serving = False
            self._move(ModelState.UNLOADING, reason, operation_id, cause=cause)

            async def take_down() -> int | None:
                seconds = self._house.config.drain_seconds if drain_seconds is None else drain_seconds
                freed = await self._take_down(crew, seconds)
                self._move(
                    ModelState.UNLOADED, reason, operation_id, freed_bytes=freed, ends_wish=ends_wish, cause=cause
                )
                return freed

            freed = await _to_its_end(take_down())
            return {"model_id": self.model_id, "status": "unloaded", "freed_bytes": freed}

    async def _take_down(self, crew: Crew, drain_seconds: float) -> int | None:
        """Ends the processes, which finish what they have; how many bytes came back with them: what they held before,
        because what their own clean-up takes at the end was free a moment ago."""
        memory = await self._memory_of(crew)
        await self._house.publish_routes()
        await self._drain(crew, drain_seconds)
        self.report_usage()
        await crew.end()
        freed = memory.private_bytes if memory else self.runtime.private_bytes
        self._forget()
        self._house.left(self.model_id, crew.counters)
        return freed

    async def _memory_of(self, crew: Crew) -> ProcessMemory | None:
        """Of all processes together; None where one cannot be measured."""
        found = [await self._house.memory_of(pid) for pid in crew.pids]
        known = [memory for memory in found if memory is not None]
        if not known or len(known) < len(found):
            return None
        return ProcessMemory(
            **{name: sum(getattr(memory, name) for memory in known) for name in ProcessMemory.__dataclass_fields__}
        )

    async def _drain(self, crew: Crew, seconds: float) -> None:
        """Returns when nothing is in flight any more, or the time is over; a stop of the daemon allows no more than
        one drain from its beginning on."""
        drain = asyncio.ensure_future(crew.drain())
        stop = asyncio.ensure_future(self._house.stopping.wait())
        try:
            began = time.monotonic()
            await asyncio.wait({drain, stop}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not drain.done() and stop.done():
                left = began + seconds - time.monotonic()
                await asyncio.wait({drain}, timeout=min(left, self._house.config.drain_seconds))
        finally:
            stop.cancel()
            drain.cancel()
        with contextlib.suppress(LoaderdError, asyncio.CancelledError):
            if drain.done():
                drain.result()
                return
        await crew.sample()  # what did finish in time is counted

    def end_hung(self, why: str, sign: Sign) -> None:
        """Ends a loaded process that does not answer any more; it is then started again like any that died."""
        if self.crew is not None and self.state is ModelState.LOADED:
            self.crew.end_hung(why, sign)

    async def end_recovery(self) -> None:
        """Ends the restarts of a model whose process died; returns when nothing of them runs any more."""
        for task in (self._recovery, self._refilling):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.wait({task})
        self.recovering = False

    async def settled(self) -> None:
        """Returns when no load, unload or restart of the model is under way."""
        while self.recovering or self.state in (ModelState.LOADING, ModelState.UNLOADING):
            await self._moved.wait()

    async def observe(self) -> None:
        """Measures the processes' memory, also while they load."""
        crew = self.crew
        if crew is None or self.state not in (ModelState.LOADED, ModelState.LOADING):
            return
        memory = await self._memory_of(crew)
        on_gpu = [await self._house.gpu_bytes_of(pid) for pid in crew.pids]
        gpu_bytes = None if None in on_gpu else sum(found or 0 for found in on_gpu)
        if memory is not None and self.crew is crew:
            self.runtime = _measured(self.runtime, memory, gpu_bytes)
            self.observed_at = time.monotonic()
            if self.state is ModelState.LOADED:
                self.resident_bytes = max(self.resident_bytes, memory.private_bytes)

    async def count(self) -> dict[str, Any] | None:
        """Samples the processes' counters and reports what was added since the last time; None: one of them gave no
        answer in time."""
        crew = self.crew
        if crew is None or self.state is not ModelState.LOADED or not await crew.sample():
            return None
        if self.crew is crew:
            self.runtime = replace(self.runtime, answered_at=time.time())
            self.report_usage()
        return crew.counters

    async def door_answers(self) -> bool | None:
        """See Crew.door_answers; None when the model is not loaded."""
        crew = self.crew
        return None if crew is None or self.state is not ModelState.LOADED else await crew.door_answers()

    def report_usage(self) -> None:
        """Reports the difference between the counters in hand and those last reported."""
        if self.crew is None:
            return
        now, before = self.crew.counters, self._reported
        requests = now.get("requests", 0) - before.get("requests", 0)
        if requests > 0:
            self._house.report(
                Usage(
                    model_id=self.model_id,
                    requests=requests,
                    items=now["items"] - before.get("items", 0),
                    errors=now["errors"] - before.get("errors", 0),
                    latency_seconds=now["latency_seconds"] - before.get("latency_seconds", 0.0),
                    last_at=now["last_at"],
                    last_error=now.get("last_error", ""),
                )
            )
            self._reported = dict(now)

    @property
    def in_flight(self) -> int:
        """Requests in the process as of the last look: being computed or queued."""
        return int(self.crew.counters.get("in_flight", 0)) if self.crew else 0

    @property
    def newest_death(self) -> str:
        """How a process of it died a moment ago; empty when none did."""
        at, how = self._death
        return how if time.monotonic() - at < DEATH_NEWS_SECONDS else ""

    @property
    def resident_seconds(self) -> float:
        """How long it has been loaded; 0.0 when it is not."""
        return time.monotonic() - self._loaded_at if self.state is ModelState.LOADED else 0.0

    def with_measurements(self, spec: ModelSpec) -> ModelSpec:
        """The spec with what this daemon measured of these bytes, where the registry does not know it yet.

        Not its canary: a spec of the registry without one means that it was forgotten, and a new one is recorded.
        """
        known = self._measured
        if known is None or _memory_key(known) != _memory_key(spec):
            return spec
        return replace(
            spec,
            peak_bytes=known.peak_bytes if spec.peak_bytes is None else spec.peak_bytes,
            resident_bytes=known.resident_bytes if spec.resident_bytes is None else spec.resident_bytes,
            gpu_bytes=known.gpu_bytes if spec.gpu_bytes is None else spec.gpu_bytes,
        )

    def cold_peak_bytes(self, spec: ModelSpec) -> int | None:
        """The peak of the last load of these bytes that was no fork from a zygote; None: this daemon made none."""
        known, peak_bytes = self._cold_peak or (None, None)
        return peak_bytes if known == _memory_key(spec) else None

    def snapshot(self) -> dict[str, Any]:
        """What `manage.py loaderd`'s status command shows; JSON values."""
        return {
            "state": self.state.value,
            "reason": self.reason,
            "lineage": self.spec.lineage if self.spec else "",
            "version": self.spec.version if self.spec else "",
            "framework": self.spec.framework if self.spec else "",
            "pid": self.runtime.pid,
            "phase": self.runtime.phase,
            "private_bytes": self.runtime.private_bytes,
            "pss_bytes": self.runtime.pss_bytes,
            "gpu_bytes": self.runtime.gpu_bytes,
            "pids": self.crew.pids if self.crew else [],
            "instances": self.crew.wanted if self.crew else 0,
            "forked": self.crew.first.forked if self.crew else None,
            "counters": self.crew.counters if self.crew else None,
            "recovering": self.recovering,
            "load_seconds": self.load_seconds,
        }

    def route(self) -> dict[str, Any]:
        """What the gateway needs to know."""
        sockets = self.crew.sockets if self._serving and self.crew else []
        return {
            "lineage": self.spec.lineage if self.spec else "",
            "version": self.spec.version if self.spec else "",
            "framework": self.spec.framework if self.spec else "",
            "state": (ModelState.LOADED if sockets else self.state).value,
            "reason": self.reason,
            "sockets": sockets,
            "autoload": self._house.rules.policy_of(self.model_id).autoload,
            "recovering": (self.recovering or self.awaited) and not sockets,
            # Without the sample: the whole table is pushed at each change.
            "signature": {key: self.signature[key] for key in _ROUTED} if sockets and self.signature else None,
            "max_batch_size": self.spec.max_batch_size if self.spec else 0,
            "instances": len(sockets),
            "max_queue": self.spec.max_queue if self.spec else 0,
            "load": self._load_name if sockets else "",
            "cache_ttl_seconds": self._house.rules.cache_seconds_of(self.model_id),
            "cacheable": self._is_reproducible,
        }

    @property
    def _is_reproducible(self) -> bool:
        """Whether it answers the same question in the same way, as its recorded canary found."""
        canary = self.spec.canary if self.spec else None
        return canary is None or bool(canary.get("reproducible", True))

    # A load, with the model's lock held

    async def _load(
        self,
        spec: ModelSpec,
        operation_id: str | None,
        reason: str,
        *,
        cause: str = "",
        protected: frozenset[str] = frozenset(),
    ) -> dict[str, Any]:
        self._require_move(ModelState.LOADING)  # before anything is overwritten
        spec = self.spec = self.with_measurements(spec)
        self.runtime = ModelRuntime(phase=LoadPhase.QUEUED)
        self._move(ModelState.LOADING, reason, operation_id, cause=cause)
        self._progress(operation_id, LoadPhase.QUEUED, 0.0)

        def tell(waits_for: str) -> None:
            self._wait(f"{reason}; {waits_for}", operation_id)

        forked = self._house.config.use_zygotes
        try:
            while True:
                try:
                    async with self._house.admitted(spec, tell, protected=protected, forked=forked):
                        try:
                            return await self._load_once(spec, operation_id, forked=forked)
                        except BaseException:
                            await self._abandon()  # what it was admitted for is held until its process is gone
                            raise
                except ForkRefused as refusal:
                    forked = False  # takes more than it was admitted with, so it is admitted once more
                    tell(f"is started cold, which takes more memory: {refusal}")
                except LoaderdError as error:
                    restart = self._restart_after(error)
                    if restart is None:
                        raise
                    await self._pause(error, restart, operation_id)
        except asyncio.CancelledError:
            self._forget()
            self.recovering = False
            self._move(ModelState.UNLOADED, "the load was cancelled", operation_id)
            raise
        except Exception as unexpected:
            failure = self._failure(unexpected)
            self._forget()
            self.recovering = False
            # One that did not fit is no broken model: it is unloaded as before, and nothing was touched.
            state = ModelState.UNLOADED if isinstance(failure, InsufficientMemory) else ModelState.ERROR
            self._move(state, failure.message, operation_id, error=failure)
            if failure is unexpected:
                raise
            raise failure from unexpected

    def _failure(self, error: Exception) -> LoaderdError:
        if isinstance(error, LoaderdError):
            return error
        log.error("%s could not be loaded", self.model_id, exc_info=error)
        return LoadFailed(
            f"{self.model_id} could not be loaded: {type(error).__name__}: {error}.", model_id=self.model_id
        )

    def _restart_after(self, error: LoaderdError) -> Restart | None:
        """The next attempt when the process died by a signal while loading: anything else would only repeat itself."""
        if error.facts.get("exit_signal") is None or self._taken_over.is_set() or self._house.stopping.is_set():
            return None
        restart = self._restarts.died(0.0, self._house.rules.max_load_attempts)
        if restart is None:
            attempts = self._restarts.tried + self._restarts.restarts
            error.message += f" It was tried {attempts} times in a row." if attempts > 1 else ""
        elif self.recovering:
            if self._owed is not None:
                self._owed = (self._owed[0], restart)
            self._house.died(self.model_id, restart.attempt, gave_up=False)
        return restart

    async def _pause(self, error: LoaderdError, restart: Restart, operation_id: str | None) -> None:
        """The backoff between two attempts of one load. Raises `error` when somebody's load takes over meanwhile."""
        again = _sentence(restart, self._house.rules.max_load_attempts)
        self._wait(f"{error.message} {again[0].upper()}{again[1:]}.", operation_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(restart.pause_seconds):
                await self._taken_over.wait()
        if self._taken_over.is_set():
            raise error

    async def _load_once(self, spec: ModelSpec, operation_id: str | None, *, forked: bool) -> dict[str, Any]:
        def on_phase(phase: LoadPhase, progress: float) -> None:
            self.runtime = replace(self.runtime, phase=phase)
            self._progress(operation_id, phase, progress)

        on_phase(LoadPhase.STARTING, 0.0)
        began = time.monotonic()
        try:
            async with asyncio.timeout(spec.timeout_seconds):
                process = await self._house.start_process(spec, on_phase, forked=forked)
                crew = self.crew = Crew(process)
                self.runtime = ModelRuntime(process.child.pid, time.time(), self.runtime.phase)
                starting_seconds = time.monotonic() - began
                ready = await asyncio.shield(process.ready)
            for number in range(2, spec.instances + 1):
                async with asyncio.timeout(spec.timeout_seconds):  # each its own: they load in turn
                    crew.add(await self._house.start_process(spec, _no_phase, forked=forked))
                    await asyncio.shield(crew.processes[-1].ready)
                on_phase(LoadPhase.CHECKING, number / spec.instances)
        except TimeoutError:
            tail = self.crew.processes[-1].log_tail() if self.crew else ""
            raise ModelTimeout(
                f"{self.model_id} was not loaded within {spec.timeout_seconds:g} s (it stood at "
                f"{self.runtime.phase}), so its process was ended; raise its load_timeout_seconds or "
                "MODEL_TIMEOUT_SECONDS.",
                model_id=self.model_id,
                timeout_seconds=spec.timeout_seconds,
                phase=self.runtime.phase,
                log_tail=tail,
            ) from None
        peak_bytes = await self._house.load_peak_of(process.child.pid)
        self.runtime = replace(self.runtime, phase=LoadPhase.SERVING)
        await self.observe()
        canary = ready.get("canary") or {}
        self._keep_measurements(spec, peak_bytes, forked=process.forked)
        if canary.get("recorded") is not None:
            self.spec = replace(spec, canary=canary["recorded"])  # what a restart must answer
        self.signature = ready["signature"]
        self._load_name = f"{spec.digest[:16]}.{secrets.token_hex(4)}"
        self.load_seconds = time.monotonic() - began
        self._reported = {}
        for each in crew.processes:
            self._watch(each)
            each.serves_since = time.monotonic()
        self._serving = True  # the door opens first: `loaded` is published after it is true
        await self._house.publish_routes()
        for each in crew.processes:
            if not each.child.is_alive:
                raise each.death(each.child.exited.result())
        self._loaded_at = time.monotonic()
        self.recovering = False
        self._owed = None
        self._move(
            ModelState.LOADED,
            "answers its warm-up",
            operation_id,
            load_seconds=self.load_seconds,
            phase_seconds={"starting": starting_seconds, **ready.get("phase_seconds", {})},
            signature=self.signature,
            peak_bytes=peak_bytes,
            measured_as=spec.measured_as,
            canary=canary.get("recorded"),
        )
        self._house.loaded(self.model_id, canary or None, self.load_seconds)
        return self._load_result()

    def _keep_measurements(self, spec: ModelSpec, peak_bytes: int | None, *, forked: bool) -> None:
        """What the next load of these bytes is admitted by, should it come before the registry knows it."""
        if self._measured is None or _memory_key(self._measured) != _memory_key(spec):
            self.resident_bytes = 0
        self.resident_bytes = max(self.resident_bytes, spec.resident_bytes or 0, self.runtime.private_bytes or 0)
        if peak_bytes is not None and not forked:
            self._cold_peak = (_memory_key(spec), peak_bytes)
        self._measured = replace(
            spec,
            peak_bytes=spec.peak_bytes if peak_bytes is None else peak_bytes,
            resident_bytes=self.resident_bytes,
            gpu_bytes=spec.gpu_bytes if self.runtime.gpu_bytes is None else self.runtime.gpu_bytes,
        )

    # Death and recovery

    def _on_death(self, process: ModelProcess) -> None:
        """The process ended without being told to: nobody else is affected, the reason is kept, and it is started
        again unless it keeps dying."""
        if self.crew is None or process not in self.crew.processes or self.state is not ModelState.LOADED:
            return
        self.report_usage()
        if len(self.crew.processes) > 1:
            self._lose(self.crew, process)
            return
        counters = self.crew.counters
        attempts = self._house.rules.max_load_attempts
        restart = None if self._house.stopping.is_set() else self._count_death(process)
        if restart is not None:
            then = f"{_sentence(restart, attempts)}."
        else:
            then = (
                f"it was started again {self._restarts.restarts} times in a row, so it is left alone now; read the end "
                "of its log in the details, mend the cause, then load it again."
            )
        error = process.death(process.child.exited.result(), then)
        self._death = time.monotonic(), error.message
        self._forget()
        self._house.left(self.model_id, counters)
        self.recovering = restart is not None
        cause = "hung" if process.hung else "crashed"
        self._move(ModelState.ERROR, error.message, None, error=error, cause=cause)
        self._house.died(self.model_id, restart.attempt if restart else self._restarts.restarts, restart is None)
        self._in_background(self._bury(process))
        if self._refilling is not None:
            self._refilling.cancel()  # ends the process that it starts, before the lock is free for another load
        if restart is not None and self.spec is not None:
            self._taken_over.clear()
            self._begin_recovery(self.spec, restart)

    def _watch(self, process: ModelProcess) -> None:
        process.child.exited.add_done_callback(lambda _: self._on_death(process))

    def _lose(self, crew: Crew, process: ModelProcess) -> None:
        """One of several processes ended without being told to: the others go on, and another one comes in its place
        unless they keep dying."""
        crew.lose(process)
        error = process.death(
            process.child.exited.result(), f"the other {len(crew.processes)} serve the model meanwhile."
        )
        self._death = time.monotonic(), error.message
        log.error("%s", error.message)
        self.runtime = replace(self.runtime, pid=crew.first.child.pid)
        self.observed_at = float("-inf")  # what is decided next is decided on what the others hold
        self._count_death(process)
        self._house.survived(self.model_id)
        self._house.push_routes()
        self._in_background(self._bury(process))
        if self._refilling is None or self._refilling.done():
            self._refilling = self._in_background(self._refill(crew))

    def _count_death(self, process: ModelProcess) -> Restart | None:
        """The attempt that follows a process' death, by how long it served itself; the one counted already when it
        served before the newest death was counted, because they are taken for one: so many at once are one attempt."""
        counted_at, restart = self._counted
        lived = time.monotonic() - process.serves_since
        if restart is None or process.serves_since >= counted_at or lived >= self._restarts.stable_seconds:
            restart = self._count_attempt(lived)
        return restart

    def _count_attempt(self, lived: float) -> Restart | None:
        restart = self._restarts.died(lived, self._house.rules.max_load_attempts)
        self._counted = time.monotonic(), restart
        return restart

    async def _refill(self, crew: Crew) -> None:
        """Starts the processes that a crew lacks. Each is admitted like a load; while there is no room for it, the
        others serve the model and it is tried again. Gives up when they keep dying, and the model stays degraded."""
        waited_for: Restart | None = None
        forked, reason = self._house.config.use_zygotes, self.reason
        told: set[tuple[str, bool]] = set()

        def tell(waits_for: str, *, refused: bool = False) -> None:
            if not self._is_served_by(crew):
                return
            self.reason = f"{crew.strength}; another one {waits_for}"
            self._house.is_short(self.model_id, self.reason, refused=refused)
            if (crew.strength, refused) not in told:  # not each time that it is tried in vain
                told.add((crew.strength, refused))
                self._report_state(None, is_no_move=True)

        while crew.missing and not self._house.stopping.is_set():
            _, restart = self._counted
            if restart is None:
                why = (
                    f"{self.model_id} lacks {crew.missing} of its processes, which die again and again and are not "
                    "started any more; the others serve it. Read the end of its log in the details, mend the cause, "
                    "unload it, then load it again."
                )
                log.error("%s", why)
                self._tell_again(f"{crew.strength}; {why}")
                self._house.stays_short(self.model_id, why)
                return
            if restart is not waited_for:  # several that one attempt stands for come without another pause
                waited_for = restart
                await asyncio.sleep(restart.pause_seconds)
            if not self._is_served_by(crew) or self.spec is None:
                return
            try:
                # Not with the lock held: who loads or unloads the model does not wait for this memory.
                async with (
                    self._house.admitted(self.spec, tell, protected=frozenset(), forked=forked, joins=True),
                    self._lock,
                ):
                    if not self._is_served_by(crew):
                        return
                    if not await self._add_process(crew, self.spec, forked=forked):
                        self._count_attempt(0.0)
                forked = self._house.config.use_zygotes
                told.clear()
            except ForkRefused as refusal:
                forked = False  # takes more than it was admitted with, so it is admitted once more
                tell(f"is started cold, which takes more memory: {refusal}")
            except InsufficientMemory as error:
                tell(f"waits for memory: {error.message}", refused=True)
                await asyncio.sleep(REFILL_SECONDS)
            except Exception:
                log.exception("nothing could be decided on another process of %s", self.model_id)
                self._count_attempt(0.0)
        if not crew.missing and self.reason != reason and self._is_served_by(crew):
            self._tell_again(crew.strength)

    def _is_served_by(self, crew: Crew) -> bool:
        return self.crew is crew and self.state is ModelState.LOADED

    def _tell_again(self, reason: str) -> None:
        """Says something else of the state that it is in."""
        if reason != self.reason:
            self.reason = reason
            self._report_state(None, is_no_move=True)

    async def _add_process(self, crew: Crew, spec: ModelSpec, *, forked: bool) -> bool:
        """One more process for a loaded model. False when it could not be started, which is logged; none is left of it
        then, nor when the model's other processes are gone or another load's. Raises ForkRefused."""
        process: ModelProcess | None = None
        try:
            async with asyncio.timeout(spec.timeout_seconds):
                process = await self._house.start_process(spec, _no_phase, forked=forked)
                await asyncio.shield(process.ready)
            if self._is_served_by(crew):
                process.serves_since = time.monotonic()
                crew.add(process)
                self._watch(process)
                self.observed_at = float("-inf")
        except (LoaderdError, OSError) as error:
            log.error("a process of %s could not be started: %s", self.model_id, error)
            return False
        finally:
            if process is not None and process not in crew.processes:
                await _to_its_end(process.end())
        if process.child.is_alive:
            await self._house.publish_routes()
        return True

    def _begin_recovery(self, spec: ModelSpec, restart: Restart) -> None:
        self.recovering = True
        self._owed = (spec, restart)
        self._recovery = self._in_background(self._recover(spec, restart))

    async def _recover(self, spec: ModelSpec, restart: Restart) -> None:
        """Loads the model again after the pause. Its failure is reported as the model's state."""
        try:
            await asyncio.sleep(restart.pause_seconds)
            async with self._lock:
                if self.state is ModelState.LOADED:
                    return  # by a load that came before its turn
                reason = f"its process died; attempt {restart.attempt} of {self._house.rules.max_load_attempts}"
                await self._load(spec, None, reason, cause="restarting")
        except LoaderdError as error:
            log.error("%s could not be started again: %s", self.model_id, error)
            if self._taken_over.is_set():
                return  # who waits tries it now
            self._owed = None
            if isinstance(error, InsufficientMemory):
                self._house.refused(spec, error.message)
            elif error.facts.get("exit_signal") is None:
                self._house.gave_up(self.model_id, error.message)
            else:
                self._house.died(self.model_id, self._restarts.restarts, gave_up=True)
        finally:
            if self._recovery is asyncio.current_task():
                self.recovering = False

    def _go_on_recovering(self) -> None:
        """A load was cancelled: a restart that it had taken over is made after all, unless the model was unloaded."""
        if self._loads == 1:
            self._taken_over.clear()
        if self._owed is None or self._house.stopping.is_set():
            return
        recovery = self._recovery
        if recovery is not None and not recovery.done() and not recovery.cancelling():
            self.recovering = True
            return
        spec, restart = self._owed
        self._restarts.resume(restart)
        self._begin_recovery(spec, restart)
        if self.state is ModelState.UNLOADED:
            self.reason = f"the load was cancelled; {_sentence(restart, self._house.rules.max_load_attempts)}"
            self._report_state(None)
        self._house.push_routes()

    async def _take_over_recovery(self) -> None:
        if not self.recovering:
            return
        if self._lock.locked():  # its attempt is under way: the caller waits for it on the lock
            self._taken_over.set()
        else:
            await self.end_recovery()

    async def _bury(self, process: ModelProcess) -> None:
        await self._house.publish_routes()
        await process.end()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def close(self) -> None:
        """Returns when nothing of the model runs in the background any more; called last, when it is unloaded."""
        await self.end_recovery()
        await asyncio.gather(*self._background, return_exceptions=True)

    # What is told

    def _load_result(self) -> dict[str, Any]:
        return {
            "model_id": self.model_id,
            "status": "loaded",
            "load_seconds": self.load_seconds,
            "private_bytes": self.runtime.private_bytes,
            "gpu_bytes": self.runtime.gpu_bytes,
        }

    async def _abandon(self) -> None:
        """Ends the processes of a load that came to nothing."""
        crew, self.crew = self.crew, None
        if crew is not None:
            await crew.end()
        self._forget()
        self._house.push_routes()  # its door may have been open already

    def _forget(self) -> None:
        if self.runtime.gpu_bytes:
            self._house.gpu_left(self.model_id, self.runtime.gpu_bytes)
        self._serving = False
        self.crew = None
        self.signature = None
        self.runtime = ModelRuntime()

    def _wait(self, reason: str, operation_id: str | None) -> None:
        """Says what a load waits for; the state stays what it is."""
        self.reason = reason
        self.runtime = ModelRuntime(phase=LoadPhase.QUEUED)
        self._report_state(operation_id)
        self._progress(operation_id, LoadPhase.QUEUED, 0.0)

    def _move(
        self,
        state: ModelState,
        reason: str,
        operation_id: str | None,
        *,
        error: LoaderdError | None = None,
        **facts: Any,
    ) -> None:
        """The one function that changes the state, and says so."""
        self._require_move(state)
        self.state, self.reason = state, reason
        self._report_state(operation_id, error=error.to_message() if error else None, **facts)
        self._house.push_routes()
        self._moved.set()
        self._moved = asyncio.Event()

    def _require_move(self, state: ModelState) -> None:
        if state is not self.state and state not in TRANSITIONS[self.state]:
            raise RuntimeError(f"{self.model_id} cannot go from {self.state} to {state}")

    def _report_state(self, operation_id: str | None, **facts: Any) -> None:
        self._house.report(
            StateReport(
                model_id=self.model_id,
                state=self.state,
                reason=self.reason,
                at=time.time(),
                operation_id=operation_id,
                digest=self.spec.digest if self.spec else None,
                runtime=self.runtime,
                **facts,
            )
        )

    def _progress(self, operation_id: str | None, phase: LoadPhase, progress: float) -> None:
        if operation_id is not None:
            self._house.report(OperationProgress(operation_id, self.model_id, phase, progress, time.time()))


def _no_phase(phase: LoadPhase, progress: float) -> None:
    """The phases of the first process are told; the others follow it."""


def _sentence(restart: Restart, attempts: int) -> str:
    return f"it is started again in {restart.pause_seconds:.1f} s, attempt {restart.attempt} of {attempts}"


async def _to_its_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Waits for work that must not be cut in half; a cancellation of the caller is raised when it is done."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as cancellation:
            cancelled = cancellation
    result = task.result()
    if cancelled is not None:
        raise cancelled
    return result


def _memory_key(spec: ModelSpec) -> tuple[str, str]:
    """What was measured of one is true of another one with the same."""
    return spec.digest, spec.measured_as


def _measured(runtime: ModelRuntime, memory: ProcessMemory, gpu_bytes: int | None) -> ModelRuntime:
    return replace(runtime, private_bytes=memory.private_bytes, pss_bytes=memory.pss_bytes, gpu_bytes=gpu_bytes)
