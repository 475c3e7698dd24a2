"""The end of one model's processes that nobody ended: told, counted, and what follows it begun."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from loaderd.states import ModelState
from loaderd.supervisor.model.background import Background
from loaderd.supervisor.model.counting import Counting
from loaderd.supervisor.model.crew import Crew
from loaderd.supervisor.model.house import ModelHouse
from loaderd.supervisor.model.life import Life
from loaderd.supervisor.model.measurements import Measurements
from loaderd.supervisor.model.recovery import Recovery
from loaderd.supervisor.model.refilling import Refilling
from loaderd.supervisor.model.restarts import Attempts
from loaderd.supervisor.model_process import ModelProcess

log = logging.getLogger(__name__)

DEATH_NEWS_SECONDS = 10.0  # in which lost requests are put down to a death


class Deaths:
    def __init__(
        self,
        life: Life,
        house: ModelHouse,
        measurements: Measurements,
        counting: Counting,
        attempts: Attempts,
        recovery: Recovery,
        refilling: Refilling,
        background: Background,
    ) -> None:
        self._life = life
        self._house = house
        self._measurements = measurements
        self._counting = counting
        self._attempts = attempts
        self._recovery = recovery
        self._refilling = refilling
        self._background = background
        self._newest: tuple[float, str] = (float("-inf"), "")  # when, and how

    @property
    def newest(self) -> str:
        """How a process died a moment ago; empty when none did."""
        at, how = self._newest
        return how if time.monotonic() - at < DEATH_NEWS_SECONDS else ""

    def watch(self, process: ModelProcess) -> None:
        process.child.exited.add_done_callback(lambda _: self._on_death(process))

    def _on_death(self, process: ModelProcess) -> None:
        """The process ended without being told to: nobody else is affected, the reason is kept, and it is started
        again unless it keeps dying."""
        life = self._life
        if life.crew is None or process not in life.crew.processes or life.state is not ModelState.LOADED:
            return
        self._counting.report_usage()
        if len(life.crew.processes) > 1:
            self._lose(life.crew, process)
            return
        counters = life.crew.counters
        restart = None if self._house.stopping.is_set() else self._attempts.count_death(process)
        in_a_row = self._attempts.restarts.restarts
        if restart is not None:
            then = f"{self._attempts.sentence(restart)}."
        else:
            then = (
                f"it was started again {in_a_row} times in a row, so it is left alone now; read the end "
                "of its log in the details, mend the cause, then load it again."
            )
        error = process.death(process.child.exited.result(), then)
        self._newest = time.monotonic(), error.message
        life.forget()
        self._house.left(life.model_id, counters)
        life.recovering = restart is not None
        life.move(ModelState.ERROR, error.message, None, error=error, cause="hung" if process.hung else "crashed")
        self._house.died(life.model_id, restart.attempt if restart else in_a_row, restart is None)
        self._background.start(self._bury(process))
        self._refilling.cancel()
        if restart is not None and life.spec is not None:
            self._recovery.taken_over.clear()
            self._recovery.begin(life.spec, restart)

    def _lose(self, crew: Crew, process: ModelProcess) -> None:
        """One of several processes ended without being told to: the others go on, and another one comes in its place
        unless they keep dying."""
        crew.lose(process)
        error = process.death(
            process.child.exited.result(), f"the other {len(crew.processes)} serve the model meanwhile."
        )
        self._newest = time.monotonic(), error.message
        log.error("%s", error.message)
        self._life.runtime = replace(self._life.runtime, pid=crew.first.child.pid)
        self._measurements.outdate()
        self._attempts.count_death(process)
        self._house.survived(self._life.model_id)
        self._house.push_routes()
        self._background.start(self._bury(process))
        self._refilling.begin(crew)

    async def _bury(self, process: ModelProcess) -> None:
        await self._house.publish_routes()
        await process.end()
