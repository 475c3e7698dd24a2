"""What one model's processes hold, as measured: now, at most, and by how much its next load is admitted."""

from __future__ import annotations

import time
from dataclasses import replace

from loaderd.protocol import ModelSpec
from loaderd.resources import ProcessMemory
from loaderd.states import ModelState
from loaderd.supervisor.model.crew import Crew
from loaderd.supervisor.model.house import ModelHouse
from loaderd.supervisor.model.life import Life


class Measurements:
    """resident_bytes: the most that the model held while it served. observed_at: of the last look, monotonic."""

    def __init__(self, life: Life, house: ModelHouse) -> None:
        self.resident_bytes = 0
        self.observed_at = float("-inf")
        self._life = life
        self._house = house
        self._measured: ModelSpec | None = None  # the spec with what the last load of it was measured at
        self._cold_peak: tuple[tuple[str, str], int] | None = None  # of the last load that was no fork; see _memory_key

    async def observe(self) -> None:
        """Measures the processes' memory, also while they load."""
        life, crew = self._life, self._life.crew
        if crew is None or life.state not in (ModelState.LOADED, ModelState.LOADING):
            return
        memory = await self.memory_of(crew)
        on_gpu = [await self._house.gpu_bytes_of(pid) for pid in crew.pids]
        gpu_bytes = None if None in on_gpu else sum(found or 0 for found in on_gpu)
        if memory is not None and life.crew is crew:
            life.runtime = replace(
                life.runtime, private_bytes=memory.private_bytes, pss_bytes=memory.pss_bytes, gpu_bytes=gpu_bytes
            )
            self.observed_at = time.monotonic()
            if life.state is ModelState.LOADED:
                self.resident_bytes = max(self.resident_bytes, memory.private_bytes)

    def outdate(self) -> None:
        """Processes came or went: what is decided next is decided on what those hold that there are."""
        self.observed_at = float("-inf")

    async def memory_of(self, crew: Crew) -> ProcessMemory | None:
        """Of all processes together; None where one cannot be measured."""
        found = [await self._house.memory_of(pid) for pid in crew.pids]
        known = [memory for memory in found if memory is not None]
        if not known or len(known) < len(found):
            return None
        return ProcessMemory(
            **{name: sum(getattr(memory, name) for memory in known) for name in ProcessMemory.__dataclass_fields__}
        )

    # Of its loads

    def keep(self, spec: ModelSpec, peak_bytes: int | None, *, forked: bool) -> None:
        """What the next load of these bytes is admitted by, should it come before the registry knows it."""
        runtime = self._life.runtime
        if self._measured is None or _memory_key(self._measured) != _memory_key(spec):
            self.resident_bytes = 0
        self.resident_bytes = max(self.resident_bytes, spec.resident_bytes or 0, runtime.private_bytes or 0)
        if peak_bytes is not None and not forked:
            self._cold_peak = (_memory_key(spec), peak_bytes)
        self._measured = replace(
            spec,
            peak_bytes=spec.peak_bytes if peak_bytes is None else peak_bytes,
            resident_bytes=self.resident_bytes,
            gpu_bytes=spec.gpu_bytes if runtime.gpu_bytes is None else runtime.gpu_bytes,
        )

    def added_to(self, spec: ModelSpec) -> ModelSpec:
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


def _memory_key(spec: ModelSpec) -> tuple[str, str]:
    """What was measured of one is true of another one with the same."""
    return spec.digest, spec.measured_as
