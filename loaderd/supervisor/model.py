"""One model version and its moves: the only place where its state changes. Commands for it run one at a time."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Protocol

from loaderd.errors import LoaderdError, LoadFailed, ModelTimeout
from loaderd.protocol import ModelSpec
from loaderd.reporter import ModelRuntime, OperationEnded, OperationProgress, Report, StateReport, Usage
from loaderd.resources import ProcessMemory
from loaderd.states import TRANSITIONS, LoadPhase, ModelState
from loaderd.supervisor.model_process import ModelProcess, OnPhase

SAMPLE_SECONDS = 2.0
_ROUTED = ("inputs", "outputs", "labels")  # what the door tells of a signature


class House(Protocol):
    """What a model needs of the daemon around it."""

    load_slots: asyncio.Semaphore
    drain_seconds: float

    def report(self, report: Report) -> None: ...
    async def start_process(self, spec: ModelSpec, on_phase: OnPhase) -> ModelProcess: ...
    async def publish_routes(self) -> None: ...
    def push_routes(self) -> None: ...
    async def memory_of(self, pid: int) -> ProcessMemory | None: ...
    async def gpu_bytes_of(self, pid: int) -> int | None: ...


class ManagedModel:
    """A model version that the daemon was told of."""

    def __init__(self, model_id: str, house: House) -> None:
        self.model_id = model_id
        self.state = ModelState.UNLOADED
        self.reason = ""
        self.spec: ModelSpec | None = None
        self.process: ModelProcess | None = None
        self.runtime = ModelRuntime()
        self.signature: dict[str, Any] | None = None
        self._house = house
        self._lock = asyncio.Lock()
        self._serving = False
        self._burial: asyncio.Task[None] | None = None  # held: the event loop would forget the task
        self._load_seconds = 0.0
        self._reported: dict[str, Any] = {}  # the counters as of the last usage report

    async def load(self, spec: ModelSpec, operation_id: str | None, reason: str) -> None:
        """Loads the model, or confirms that it is loaded; ends the operation, if there is one, either way.

        Cancelling the task ends the process and leaves the model unloaded.
        """
        async with self._lock:
            if self.state is ModelState.LOADED:
                self._end(operation_id, result=self._load_result())
                return
            self.spec = spec
            self.runtime = ModelRuntime(phase=LoadPhase.QUEUED)
            self._move(ModelState.LOADING, reason, operation_id)
            self._progress(operation_id, LoadPhase.QUEUED, 0.0)
            try:
                async with self._house.load_slots:
                    await self._load(spec, operation_id)
            except asyncio.CancelledError:
                await self._abandon()
                self._move(ModelState.UNLOADED, "the load was cancelled", operation_id)
                raise
            except LoaderdError as error:
                await self._abandon()
                self._move(ModelState.ERROR, error.message, operation_id, error=error)
                self._end(operation_id, error=error)
            except Exception as error:
                failure = LoadFailed(
                    f"{self.model_id} could not be loaded: {type(error).__name__}: {error}.", model_id=self.model_id
                )
                await self._abandon()
                self._move(ModelState.ERROR, failure.message, operation_id, error=failure)
                self._end(operation_id, error=failure)

    async def unload(self, operation_id: str | None, reason: str) -> None:
        """Finishes what is in flight, ends the process, measures what came back; ends the operation."""
        async with self._lock:
            process = self.process
            if self.state is not ModelState.LOADED or process is None:
                if self.state is ModelState.ERROR:
                    self._move(ModelState.UNLOADED, reason, operation_id)
                self._end(operation_id, result={"model_id": self.model_id, "status": "not_loaded"})
                return
            self._serving = False
            self._move(ModelState.UNLOADING, reason, operation_id)
            await self._house.publish_routes()
            try:
                await asyncio.wait_for(process.drain(), self._house.drain_seconds)
            except (TimeoutError, LoaderdError):
                await self._sample(process)  # what did finish in time is counted
            self.report_usage()
            memory = await self._house.memory_of(process.child.pid)
            await process.end()
            freed = memory.private_bytes if memory else self.runtime.private_bytes
            self._forget()
            self._move(ModelState.UNLOADED, reason, operation_id, freed_bytes=freed)
            self._end(operation_id, result={"model_id": self.model_id, "status": "unloaded", "freed_bytes": freed})

    async def observe(self) -> None:
        """Measures the process' memory."""
        process = self.process
        if process is None or self.state is not ModelState.LOADED:
            return
        memory = await self._house.memory_of(process.child.pid)
        if memory is not None and self.process is process:
            self.runtime = await self._measured(process, memory, LoadPhase.SERVING)

    async def count_usage(self) -> None:
        """Samples the process' counters and reports what was added since the last time."""
        process = self.process
        if process is None or self.state is not ModelState.LOADED:
            return
        if await self._sample(process):
            self.report_usage()

    async def _sample(self, process: ModelProcess) -> bool:
        """Takes in the process' counters; False when it does not answer (stuck in C code, stopped, dead)."""
        try:
            await asyncio.wait_for(process.sample(), SAMPLE_SECONDS)
        except (TimeoutError, LoaderdError):
            return False
        return True

    def report_usage(self) -> None:
        """Reports the difference between the counters in hand and those last reported."""
        if self.process is None:
            return
        now, before = self.process.counters, self._reported
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

    def snapshot(self) -> dict[str, Any]:
        """What `manage.py loaderd`'s status command shows; JSON values."""
        return {
            "state": self.state.value,
            "reason": self.reason,
            "pid": self.runtime.pid,
            "phase": self.runtime.phase,
            "private_bytes": self.runtime.private_bytes,
            "pss_bytes": self.runtime.pss_bytes,
            "gpu_bytes": self.runtime.gpu_bytes,
            "forked": self.process.forked if self.process else None,
            "counters": self.process.counters if self.process else None,
        }

    def route(self) -> dict[str, Any]:
        """What the gateway needs to know."""
        socket = str(self.process.data_socket) if self._serving and self.process else None
        return {
            "lineage": self.spec.lineage if self.spec else "",
            "version": self.spec.version if self.spec else "",
            "framework": self.spec.framework if self.spec else "",
            "state": (ModelState.LOADED if socket else self.state).value,
            "reason": self.reason,
            "socket": socket,
            # Without the sample: the whole table is pushed at each change.
            "signature": {key: self.signature[key] for key in _ROUTED} if socket and self.signature else None,
            "max_batch_size": self.spec.max_batch_size if self.spec else 0,
            "max_queue": self.spec.max_queue if self.spec else 0,
        }

    async def _load(self, spec: ModelSpec, operation_id: str | None) -> None:
        def on_phase(phase: LoadPhase, progress: float) -> None:
            self.runtime = ModelRuntime(self.runtime.pid, self.runtime.started_at, phase)
            self._progress(operation_id, phase, progress)

        on_phase(LoadPhase.STARTING, 0.0)
        began = time.monotonic()
        try:
            async with asyncio.timeout(spec.timeout_seconds):
                process = self.process = await self._house.start_process(spec, on_phase)
                self.runtime = ModelRuntime(process.child.pid, time.time(), self.runtime.phase)
                starting_seconds = time.monotonic() - began
                ready = await asyncio.shield(process.ready)
        except TimeoutError:
            tail = self.process.log_tail() if self.process else ""
            raise ModelTimeout(
                f"{self.model_id} was not loaded within {spec.timeout_seconds:g} s (it stood at "
                f"{self.runtime.phase}), so its process was ended; raise its load_timeout_seconds or "
                "MODEL_TIMEOUT_SECONDS.",
                model_id=self.model_id,
                timeout_seconds=spec.timeout_seconds,
                phase=self.runtime.phase,
                log_tail=tail,
            ) from None
        memory = await self._house.memory_of(process.child.pid)
        self.runtime = await self._measured(process, memory, LoadPhase.SERVING)
        self.signature = ready["signature"]
        self._load_seconds = time.monotonic() - began
        self._reported = {}
        process.child.exited.add_done_callback(lambda _: self._on_death(process))
        self._serving = True  # the door opens first: `loaded` is published after it is true
        await self._house.publish_routes()
        if not process.child.is_alive:
            raise process.death(process.child.exited.result())
        self._move(
            ModelState.LOADED,
            "answers its warm-up",
            operation_id,
            load_seconds=self._load_seconds,
            phase_seconds={"starting": starting_seconds, **ready.get("phase_seconds", {})},
            signature=self.signature,
        )
        self._end(operation_id, result=self._load_result())

    def _on_death(self, process: ModelProcess) -> None:
        """The process ended without being told to: nobody else is affected, and the reason is kept."""
        if self.process is not process or self.state is not ModelState.LOADED:
            return
        self.report_usage()
        error = process.death(process.child.exited.result())
        self._forget()
        self._move(ModelState.ERROR, error.message, None, error=error)
        self._burial = asyncio.ensure_future(self._bury(process))

    async def _bury(self, process: ModelProcess) -> None:
        await self._house.publish_routes()
        await process.end()

    def _load_result(self) -> dict[str, Any]:
        return {
            "model_id": self.model_id,
            "status": "loaded",
            "load_seconds": self._load_seconds,
            "private_bytes": self.runtime.private_bytes,
            "gpu_bytes": self.runtime.gpu_bytes,
        }

    async def _measured(self, process: ModelProcess, memory: ProcessMemory | None, phase: LoadPhase) -> ModelRuntime:
        return ModelRuntime(
            pid=process.child.pid,
            started_at=self.runtime.started_at,
            phase=phase,
            private_bytes=memory.private_bytes if memory else None,
            pss_bytes=memory.pss_bytes if memory else None,
            gpu_bytes=await self._house.gpu_bytes_of(process.child.pid),
        )

    async def _abandon(self) -> None:
        """Ends the process of a load that came to nothing."""
        process, self.process = self.process, None
        if process is not None:
            await process.end()
        self._forget()

    def _forget(self) -> None:
        self._serving = False
        self.process = None
        self.signature = None
        self.runtime = ModelRuntime()

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
        if state not in TRANSITIONS[self.state]:
            raise RuntimeError(f"{self.model_id} cannot go from {self.state} to {state}")
        self.state, self.reason = state, reason
        self._house.report(
            StateReport(
                model_id=self.model_id,
                state=state,
                reason=reason,
                at=time.time(),
                operation_id=operation_id,
                digest=self.spec.digest if self.spec else None,
                runtime=self.runtime,
                error=error.to_message() if error else None,
                **facts,
            )
        )
        self._house.push_routes()

    def _progress(self, operation_id: str | None, phase: LoadPhase, progress: float) -> None:
        if operation_id is not None:
            self._house.report(OperationProgress(operation_id, self.model_id, phase, progress, time.time()))

    def _end(
        self, operation_id: str | None, *, result: dict[str, Any] | None = None, error: LoaderdError | None = None
    ) -> None:
        if operation_id is not None:
            message = error.to_message() if error else None
            self._house.report(OperationEnded(operation_id, time.time(), result, message))
