"""Of several processes that serve one model some died: others come in their place, while the rest serve it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from loaderd.errors import InsufficientMemory, LoaderdError
from loaderd.protocol import ModelSpec
from loaderd.states import LoadPhase
from loaderd.supervisor.model.background import Background, to_its_end
from loaderd.supervisor.model.crew import Crew
from loaderd.supervisor.model.house import ModelHouse
from loaderd.supervisor.model.life import Life
from loaderd.supervisor.model.measurements import Measurements
from loaderd.supervisor.model.restarts import Attempts, Restart
from loaderd.supervisor.model_process import ModelProcess
from loaderd.supervisor.zygotes import ForkRefused

log = logging.getLogger(__name__)

REFILL_SECONDS = 2.0  # until memory for one more process is asked for again


class Refilling:
    """watch: told of each process that came. task: the newest one's, done or not."""

    def __init__(
        self,
        life: Life,
        house: ModelHouse,
        measurements: Measurements,
        attempts: Attempts,
        background: Background,
        watch: Callable[[ModelProcess], None],
    ) -> None:
        self.task: asyncio.Task[None] | None = None
        self._life = life
        self._house = house
        self._measurements = measurements
        self._attempts = attempts
        self._background = background
        self._watch = watch

    def begin(self, crew: Crew) -> None:
        """Unless it is under way."""
        if self.task is None or self.task.done():
            self.task = self._background.start(self._refill(crew))

    def cancel(self) -> None:
        """Ends the process that is being started, before the model's lock is free for another load."""
        if self.task is not None:
            self.task.cancel()

    async def _refill(self, crew: Crew) -> None:
        """Starts the processes that a crew lacks. Each is admitted like a load; while there is no room for it, the
        others serve the model and it is tried again. Gives up when they keep dying, and the model stays degraded."""
        life, house = self._life, self._house
        waited_for: Restart | None = None
        forked, reason = house.config.use_zygotes, life.reason
        told: set[tuple[str, bool]] = set()

        def tell(waits_for: str, *, refused: bool = False) -> None:
            if not life.is_served_by(crew):
                return
            life.reason = f"{crew.strength}; another one {waits_for}"
            house.is_short(life.model_id, life.reason, refused=refused)
            if (crew.strength, refused) not in told:  # not each time that it is tried in vain
                told.add((crew.strength, refused))
                life.report_state(None, is_no_move=True)

        while crew.missing and not house.stopping.is_set():
            restart = self._attempts.newest
            if restart is None:
                self._give_up(crew)
                return
            if restart is not waited_for:  # several that one attempt stands for come without another pause
                waited_for = restart
                await asyncio.sleep(restart.pause_seconds)
            if not life.is_served_by(crew) or life.spec is None:
                return
            try:
                # Not with the lock held: who loads or unloads the model does not wait for this memory.
                async with (
                    house.admitted(life.spec, tell, protected=frozenset(), forked=forked, joins=True),
                    life.lock,
                ):
                    if not life.is_served_by(crew):
                        return
                    if not await self._add_process(crew, life.spec, forked=forked):
                        self._attempts.count(0.0)
                forked = house.config.use_zygotes
                told.clear()
            except ForkRefused as refusal:
                forked = False  # takes more than it was admitted with, so it is admitted once more
                tell(f"is started cold, which takes more memory: {refusal}")
            except InsufficientMemory as error:
                tell(f"waits for memory: {error.message}", refused=True)
                await asyncio.sleep(REFILL_SECONDS)
            except Exception:
                log.exception("nothing could be decided on another process of %s", life.model_id)
                self._attempts.count(0.0)
        if not crew.missing and life.reason != reason and life.is_served_by(crew):
            life.tell_again(crew.strength)

    def _give_up(self, crew: Crew) -> None:
        why = (
            f"{self._life.model_id} lacks {crew.missing} of its processes, which die again and again and are not "
            "started any more; the others serve it. Read the end of its log in the details, mend the cause, "
            "unload it, then load it again."
        )
        log.error("%s", why)
        self._life.tell_again(f"{crew.strength}; {why}")
        self._house.stays_short(self._life.model_id, why)

    async def _add_process(self, crew: Crew, spec: ModelSpec, *, forked: bool) -> bool:
        """One more process for a loaded model. False when it could not be started, which is logged; none is left of it
        then, nor when the model's other processes are gone or another load's. Raises ForkRefused."""
        process: ModelProcess | None = None
        try:
            async with asyncio.timeout(spec.timeout_seconds):
                process = await self._house.start_process(spec, no_phase, forked=forked)
                await asyncio.shield(process.ready)
            if self._life.is_served_by(crew):
                process.serves_since = time.monotonic()
                crew.add(process)
                self._watch(process)
                self._measurements.outdate()
        except (LoaderdError, OSError) as error:
            log.error("a process of %s could not be started: %s", self._life.model_id, error)
            return False
        finally:
            if process is not None and process not in crew.processes:
                await to_its_end(process.end())
        if process.child.is_alive:
            await self._house.publish_routes()
        return True


def no_phase(phase: LoadPhase, progress: float) -> None:
    """The phases of the first process are told; the others follow it."""
