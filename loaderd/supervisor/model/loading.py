"""One load of a model: admitted, its processes started, measured, its door opened; and what is left when it fails."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from loaderd.errors import InsufficientMemory, LoaderdError, LoadFailed, ModelTimeout
from loaderd.protocol import ModelSpec
from loaderd.reporter import ModelRuntime
from loaderd.states import LoadPhase, ModelState
from loaderd.supervisor.model.counting import Counting
from loaderd.supervisor.model.crew import Crew
from loaderd.supervisor.model.house import ModelHouse
from loaderd.supervisor.model.life import Life
from loaderd.supervisor.model.measurements import Measurements
from loaderd.supervisor.model.recovery import Recovery
from loaderd.supervisor.model.refilling import no_phase
from loaderd.supervisor.model_process import ModelProcess
from loaderd.supervisor.zygotes import ForkRefused

log = logging.getLogger(__name__)


class Loading:
    """Its caller holds the model's lock. watch: told of each process that serves."""

    def __init__(
        self,
        life: Life,
        house: ModelHouse,
        measurements: Measurements,
        counting: Counting,
        recovery: Recovery,
        watch: Callable[[ModelProcess], None],
    ) -> None:
        self._life = life
        self._house = house
        self._measurements = measurements
        self._counting = counting
        self._recovery = recovery
        self._watch = watch

    def result(self) -> dict[str, Any]:
        """Of a load that is done."""
        life = self._life
        return {
            "model_id": life.model_id,
            "status": "loaded",
            "load_seconds": life.load_seconds,
            "private_bytes": life.runtime.private_bytes,
            "gpu_bytes": life.runtime.gpu_bytes,
        }

    async def run(
        self,
        spec: ModelSpec,
        operation_id: str | None,
        reason: str,
        *,
        cause: str = "",
        protected: frozenset[str] = frozenset(),
    ) -> dict[str, Any]:
        """Loads the model, in as many attempts as it takes. Raises LoaderdError, or what cancelled it; then nothing of
        it is left, and the state says so."""
        life = self._life
        life.require_move(ModelState.LOADING)  # before anything is overwritten
        spec = life.spec = self._measurements.added_to(spec)
        life.runtime = ModelRuntime(phase=LoadPhase.QUEUED)
        life.move(ModelState.LOADING, reason, operation_id, cause=cause)
        life.progress(operation_id, LoadPhase.QUEUED, 0.0)

        def tell(waits_for: str) -> None:
            life.wait(f"{reason}; {waits_for}", operation_id)

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
                    restart = self._recovery.restart_after(error)
                    if restart is None:
                        raise
                    await self._recovery.pause(error, restart, operation_id)
        except asyncio.CancelledError:
            life.forget()
            life.recovering = False
            life.move(ModelState.UNLOADED, "the load was cancelled", operation_id)
            raise
        except Exception as unexpected:
            failure = self._failure(unexpected)
            life.forget()
            life.recovering = False
            # One that did not fit is no broken model: it is unloaded as before, and nothing was touched.
            state = ModelState.UNLOADED if isinstance(failure, InsufficientMemory) else ModelState.ERROR
            life.move(state, failure.message, operation_id, error=failure)
            if failure is unexpected:
                raise
            raise failure from unexpected

    def _failure(self, error: Exception) -> LoaderdError:
        if isinstance(error, LoaderdError):
            return error
        model_id = self._life.model_id
        log.error("%s could not be loaded", model_id, exc_info=error)
        return LoadFailed(f"{model_id} could not be loaded: {type(error).__name__}: {error}.", model_id=model_id)

    async def _abandon(self) -> None:
        """Ends the processes of a load that came to nothing."""
        crew, self._life.crew = self._life.crew, None
        if crew is not None:
            await crew.end()
        self._life.forget()
        self._house.push_routes()  # its door may have been open already

    async def _load_once(self, spec: ModelSpec, operation_id: str | None, *, forked: bool) -> dict[str, Any]:
        life = self._life

        def on_phase(phase: LoadPhase, progress: float) -> None:
            life.runtime = replace(life.runtime, phase=phase)
            life.progress(operation_id, phase, progress)

        on_phase(LoadPhase.STARTING, 0.0)
        began = time.monotonic()
        try:
            async with asyncio.timeout(spec.timeout_seconds):
                process = await self._house.start_process(spec, on_phase, forked=forked)
                crew = life.crew = Crew(process)
                life.runtime = ModelRuntime(process.child.pid, time.time(), life.runtime.phase)
                starting_seconds = time.monotonic() - began
                ready = await asyncio.shield(process.ready)
            for number in range(2, spec.instances + 1):
                async with asyncio.timeout(spec.timeout_seconds):  # each its own: they load in turn
                    crew.add(await self._house.start_process(spec, no_phase, forked=forked))
                    await asyncio.shield(crew.processes[-1].ready)
                on_phase(LoadPhase.CHECKING, number / spec.instances)
        except TimeoutError:
            raise self._timeout(spec) from None
        peak_bytes = await self._house.load_peak_of(process.child.pid)
        life.runtime = replace(life.runtime, phase=LoadPhase.SERVING)
        await self._measurements.observe()
        canary = ready.get("canary") or {}
        self._measurements.keep(spec, peak_bytes, forked=process.forked)
        if canary.get("recorded") is not None:
            life.spec = replace(spec, canary=canary["recorded"])  # what a restart must answer
        life.signature = ready["signature"]
        life.load_name = f"{spec.digest[:16]}.{secrets.token_hex(4)}"
        life.load_seconds = time.monotonic() - began
        self._counting.begin()
        await self._open_door(crew)
        life.loaded_at = time.monotonic()
        life.recovering = False
        self._recovery.forget()
        life.move(
            ModelState.LOADED,
            "answers its warm-up",
            operation_id,
            load_seconds=life.load_seconds,
            phase_seconds={"starting": starting_seconds, **ready.get("phase_seconds", {})},
            signature=life.signature,
            peak_bytes=peak_bytes,
            measured_as=spec.measured_as,
            canary=canary.get("recorded"),
        )
        self._house.loaded(life.model_id, canary or None, life.load_seconds)
        return self.result()

    async def _open_door(self, crew: Crew) -> None:
        """Returns when clients get through, before `loaded` is published: it is true then. Raises ModelProcessDied."""
        for each in crew.processes:
            self._watch(each)
            each.serves_since = time.monotonic()
        self._life.serving = True
        await self._house.publish_routes()
        for each in crew.processes:
            if not each.child.is_alive:
                raise each.death(each.child.exited.result())

    def _timeout(self, spec: ModelSpec) -> ModelTimeout:
        life = self._life
        return ModelTimeout(
            f"{life.model_id} was not loaded within {spec.timeout_seconds:g} s (it stood at "
            f"{life.runtime.phase}), so its process was ended; raise its load_timeout_seconds or "
            "MODEL_TIMEOUT_SECONDS.",
            model_id=life.model_id,
            timeout_seconds=spec.timeout_seconds,
            phase=life.runtime.phase,
            log_tail=life.crew.processes[-1].log_tail() if life.crew else "",
        )
