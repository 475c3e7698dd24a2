"""The end of one model's processes on purpose: drained, ended, and what came back with them."""

from __future__ import annotations

import asyncio
import contextlib
import time

from loaderd.errors import LoaderdError
from loaderd.supervisor.model.counting import Counting
from loaderd.supervisor.model.crew import Crew
from loaderd.supervisor.model.house import ModelHouse
from loaderd.supervisor.model.life import Life
from loaderd.supervisor.model.measurements import Measurements


class Unloading:
    """Its caller holds the model's lock, and moves its state."""

    def __init__(self, life: Life, house: ModelHouse, measurements: Measurements, counting: Counting) -> None:
        self._life = life
        self._house = house
        self._measurements = measurements
        self._counting = counting

    async def take_down(self, crew: Crew, drain_seconds: float) -> int | None:
        """Ends the processes, which finish what they have; how many bytes came back with them: what they held before,
        because what their own clean-up takes at the end was free a moment ago."""
        life = self._life
        memory = await self._measurements.memory_of(crew)
        await self._house.publish_routes()
        await self._drain(crew, drain_seconds)
        self._counting.report_usage()
        await crew.end()
        freed = memory.private_bytes if memory else life.runtime.private_bytes
        life.forget()
        self._house.left(life.model_id, crew.counters)
        return freed

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
