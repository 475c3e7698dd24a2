"""One model version: the commands for it, which run one at a time, and what others may know of it."""

from __future__ import annotations

import asyncio
from typing import Any

from loaderd.errors import LoaderdError
from loaderd.protocol import ModelSpec
from loaderd.reporter import ModelRuntime
from loaderd.states import ModelState
from loaderd.supervisor.health import Sign
from loaderd.supervisor.model import facts
from loaderd.supervisor.model.background import Background, to_its_end
from loaderd.supervisor.model.counting import Counting
from loaderd.supervisor.model.crew import Crew
from loaderd.supervisor.model.deaths import Deaths
from loaderd.supervisor.model.house import ModelHouse
from loaderd.supervisor.model.life import Life
from loaderd.supervisor.model.loading import Loading
from loaderd.supervisor.model.measurements import Measurements
from loaderd.supervisor.model.recovery import Recovery
from loaderd.supervisor.model.refilling import Refilling
from loaderd.supervisor.model.restarts import Attempts
from loaderd.supervisor.model.unloading import Unloading
from loaderd.supervisor.model_process import ModelProcess


class ManagedModel:
    """A model version that the daemon was told of."""

    def __init__(self, model_id: str, house: ModelHouse) -> None:
        self.model_id = model_id
        self._house = house
        self._loads = 0  # that somebody asked for, under way or waiting for their turn
        life = self._life = Life(model_id, house)
        measured = self._measurements = Measurements(life, house)
        counting = self._counting = Counting(life, house)
        background = self._background = Background()
        attempts = self._attempts = Attempts(house)
        recovery = self._recovery = Recovery(life, house, attempts, background, self._load_again)
        refilling = self._refilling = Refilling(life, house, measured, attempts, background, self._watch)
        self._deaths = Deaths(life, house, measured, counting, attempts, recovery, refilling, background)
        self._loading = Loading(life, house, measured, counting, recovery, self._watch)
        self._unloading = Unloading(life, house, measured, counting)

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
            async with self._life.lock:
                if self.state is ModelState.LOADED:
                    return self._loading.result()
                self._recovery.taken_over.clear()
                self._attempts.restarts.begin(tried=1)
                result = await self._loading.run(spec, operation_id, reason, protected=protected)
                self._attempts.restarts.begin()
                return result
        except asyncio.CancelledError:
            if self._loads == 1:
                self._recovery.taken_over.clear()
            self._recovery.load_cancelled()
            raise
        except LoaderdError as error:
            self._recovery.load_failed(error)
            raise
        finally:
            self._loads -= 1

    async def _take_over_recovery(self) -> None:
        if not self.recovering:
            return
        if self._life.lock.locked():  # its attempt is under way: the caller waits for it on the lock
            self._recovery.taken_over.set()
        else:
            await self.end_recovery()

    async def _load_again(self, spec: ModelSpec, reason: str) -> None:
        await self._loading.run(spec, None, reason, cause="restarting")

    def _watch(self, process: ModelProcess) -> None:
        self._deaths.watch(process)

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
        async with self._life.lock:
            self._recovery.forget()
            await self.end_recovery()  # a load that was cancelled before this turn may have begun it again
            life, crew = self._life, self._life.crew
            if life.state is not ModelState.LOADED or crew is None:
                if life.state is ModelState.ERROR or (ends_wish and life.state is ModelState.UNLOADED):
                    life.move(ModelState.UNLOADED, reason, operation_id, ends_wish=ends_wish, cause=cause)
                return {"model_id": self.model_id, "status": "not_loaded"}
            life.serving = False
            life.move(ModelState.UNLOADING, reason, operation_id, cause=cause)

            async def take_down() -> int | None:
                seconds = self._house.config.drain_seconds if drain_seconds is None else drain_seconds
                freed = await self._unloading.take_down(crew, seconds)
                life.move(
                    ModelState.UNLOADED, reason, operation_id, freed_bytes=freed, ends_wish=ends_wish, cause=cause
                )
                return freed

            freed = await to_its_end(take_down())
            return {"model_id": self.model_id, "status": "unloaded", "freed_bytes": freed}

    def end_hung(self, why: str, sign: Sign) -> None:
        """Ends a loaded process that does not answer any more; it is then started again like any that died."""
        if self.crew is not None and self.state is ModelState.LOADED:
            self.crew.end_hung(why, sign)

    async def end_recovery(self) -> None:
        """Ends the restarts of a model whose process died; returns when nothing of them runs any more."""
        for task in (self._recovery.task, self._refilling.task):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.wait({task})
        self._life.recovering = False

    async def settled(self) -> None:
        """Returns when no load, unload or restart of the model is under way."""
        await self._life.settled()

    async def close(self) -> None:
        """Returns when nothing of the model runs in the background any more; called last, when it is unloaded."""
        await self.end_recovery()
        await self._background.done()

    # What is asked of its processes

    async def observe(self) -> None:
        """Measures the processes' memory, also while they load."""
        await self._measurements.observe()

    async def count(self) -> dict[str, Any] | None:
        """Samples the processes' counters and reports what was added since the last time; None: one of them gave no
        answer in time."""
        return await self._counting.count()

    async def door_answers(self) -> bool | None:
        """See Crew.door_answers; None when the model is not loaded."""
        crew = self.crew
        return None if crew is None or self.state is not ModelState.LOADED else await crew.door_answers()

    # What is known of it

    @property
    def state(self) -> ModelState:
        return self._life.state

    @property
    def reason(self) -> str:
        return self._life.reason

    @property
    def spec(self) -> ModelSpec | None:
        return self._life.spec

    @property
    def crew(self) -> Crew | None:
        return self._life.crew

    @property
    def runtime(self) -> ModelRuntime:
        return self._life.runtime

    @property
    def recovering(self) -> bool:
        """Its process died and another one is on its way."""
        return self._life.recovering

    @property
    def awaited(self) -> bool:
        """It is loaded because it should be loaded, so requests wait for it as they do for a restart."""
        return self._life.awaited

    @awaited.setter
    def awaited(self, awaited: bool) -> None:
        self._life.awaited = awaited

    @property
    def load_seconds(self) -> float:
        """Of its last load."""
        return self._life.load_seconds

    @property
    def resident_seconds(self) -> float:
        """How long it has been loaded; 0.0 when it is not."""
        return self._life.resident_seconds

    @property
    def resident_bytes(self) -> int:
        """The most that it held while it served."""
        return self._measurements.resident_bytes

    @property
    def observed_at(self) -> float:
        """When its memory was measured last, monotonic."""
        return self._measurements.observed_at

    @property
    def in_flight(self) -> int:
        """Requests in the process as of the last look: being computed or queued."""
        return self._counting.in_flight

    @property
    def newest_death(self) -> str:
        """How a process of it died a moment ago; empty when none did."""
        return self._deaths.newest

    def with_measurements(self, spec: ModelSpec) -> ModelSpec:
        """See Measurements.added_to."""
        return self._measurements.added_to(spec)

    def cold_peak_bytes(self, spec: ModelSpec) -> int | None:
        """The peak of the last load of these bytes that was no fork from a zygote; None: this daemon made none."""
        return self._measurements.cold_peak_bytes(spec)

    def snapshot(self) -> dict[str, Any]:
        """What `manage.py loaderd`'s status command shows; JSON values."""
        return facts.snapshot(self._life)

    def route(self) -> dict[str, Any]:
        """What the gateway needs to know."""
        return facts.route(self._life, self._house.rules)
