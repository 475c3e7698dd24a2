"""The processes that serve one loaded model together: one, or as many as its `instances` say.

Each has its own copy of the model, its own data socket and its own counters; what their files map they share. For
everybody else they are one: asked, counted and ended together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any

from loaderd.errors import LoaderdError
from loaderd.supervisor.health import Sign
from loaderd.supervisor.model.knocking import knock
from loaderd.supervisor.model_process import ModelProcess

SAMPLE_SECONDS = 2.0

_HIGHEST = frozenset({"busy_seconds", "last_at", "started_at"})
_OF_THE_MOMENT = ("in_flight", "queued", "max_in_flight", "max_queued", "busy_seconds")  # end with their process


class Crew:
    """processes: those that live, the oldest first; never empty once the model is loaded."""

    def __init__(self, first: ModelProcess) -> None:
        self.processes = [first]
        self._wanted = 1
        self._started_at: float | None = None  # of the first one: to those who count it is one process all the time
        self._gone: dict[str, Any] = {}  # what those that died counted, together
        self._silent: list[ModelProcess] = []  # told no counters when asked last
        self._shut: list[ModelProcess] = []  # did not open their door when knocked at last, or refused

    @property
    def first(self) -> ModelProcess:
        return self.processes[0]

    @property
    def pids(self) -> list[int]:
        return [process.child.pid for process in self.processes]

    @property
    def sockets(self) -> list[str]:
        return [str(process.data_socket) for process in self.processes]

    @property
    def is_alive(self) -> bool:
        return all(process.child.is_alive for process in self.processes)

    @property
    def wanted(self) -> int:
        return self._wanted

    @property
    def strength(self) -> str:
        """How many of the wanted processes there are, in words."""
        return f"{len(self.processes)} of {self._wanted} processes serve it"

    @property
    def missing(self) -> int:
        """How many of the wanted processes there are not."""
        return self._wanted - len(self.processes)

    def add(self, process: ModelProcess) -> None:
        self.processes.append(process)
        self._wanted = max(self._wanted, len(self.processes))

    def lose(self, process: ModelProcess) -> None:
        """One of several died; what it counted stays counted."""
        self.processes.remove(process)
        self._gone = _sum([self._gone, {**process.counters, **dict.fromkeys(_OF_THE_MOMENT, 0)}])

    @property
    def counters(self) -> dict[str, Any]:
        """Of all together, those that died included; {} before the first sample."""
        told = [process.counters for process in self.processes if process.counters]
        if not told:
            return {}
        if self._started_at is None:
            self._started_at = told[0].get("started_at")
        if len(told) == 1 and not self._gone:
            merged = dict(told[0])
        else:
            merged = _sum([*told, self._gone])
            newest = max(told, key=lambda counters: float(counters.get("last_at", 0.0)))
            merged["last_error"] = newest.get("last_error", "")
        if self._started_at is not None:
            merged["started_at"] = self._started_at
        if self._wanted > 1:
            merged["processes"], merged["missing_processes"] = len(self.processes), self.missing
        return merged

    async def sample(self) -> bool:
        """Takes in all counters; False when a process does not answer (stuck in C code, stopped, dead). One that left
        the crew meanwhile need not."""
        asked = list(self.processes)
        answered = await asyncio.gather(*map(_sample, asked))
        silent = [process for process, answers in zip(asked, answered, strict=True) if not answers]
        self._silent = [process for process in silent if process in self.processes]
        return not self._silent

    async def door_answers(self) -> bool | None:
        """Whether clients get through: False when a data socket refuses them though its process lives and answers over
        its channel; None when no answer came in time."""
        shut: list[ModelProcess] = []
        for process in list(self.processes):
            found = await knock(process.data_socket, SAMPLE_SECONDS)
            if found is False:  # so does one that is dying, and its channel is silent then
                found = await knock(process.data_socket, SAMPLE_SECONDS) if await _sample(process) else None
            if process not in self.processes:
                continue  # it left the crew meanwhile
            if found is False:
                self._shut = [process]
                return False
            if not found:
                shut.append(process)
        self._shut = shut
        return None if shut else True

    async def canary(self) -> dict[str, Any]:
        """What the canary came to: the first that fails, else the slowest; of one that dies meanwhile the others tell.
        Raises ModelProcessDied when there are none."""
        worst: dict[str, Any] = {}
        death: LoaderdError | None = None
        for process in list(self.processes):
            try:
                result = await process.canary()
            except LoaderdError as error:
                if process.child.is_alive:
                    raise
                death = error
                continue
            if not result.get("ok"):
                return result
            if not worst or (result.get("seconds") or 0.0) > (worst.get("seconds") or 0.0):
                worst = result
        if not worst and death is not None:
            raise death
        return worst

    async def drain(self) -> None:
        """Returns when nothing is in flight any more and the last counters are in. Raises ModelProcessDied when one
        died meanwhile, after the others are done."""
        await _all(process.drain() for process in self.processes)

    async def end(self) -> None:
        """Kills and reaps all; their memory is back when this returns."""
        await _all(process.end() for process in self.processes)

    def end_hung(self, why: str, sign: Sign) -> None:
        """Kills those of which the sign tells: that were silent or shut when asked last, else the one in the longest
        call."""
        told_of = {"silent": self._silent, "door": self._shut, "busy": []}[sign]
        suspects = [process for process in self.processes if process in told_of]
        if not suspects:
            suspects = [max(self.processes, key=lambda p: float(p.counters.get("busy_seconds", 0.0)))]
        for process in suspects:
            process.end_hung(why)


async def _all(works: Iterable[Coroutine[Any, Any, Any]]) -> None:
    """Returns when all are done, those that fail too; then raises the first failure."""
    for result in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


async def _sample(process: ModelProcess) -> bool:
    try:
        await asyncio.wait_for(process.sample(), SAMPLE_SECONDS)
    except (TimeoutError, LoaderdError):
        return False
    return True


def _sum(counters: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Numbers are added, but for those of which the highest counts; lists of numbers element by element; calls by
    their size."""
    merged: dict[str, Any] = {}
    for each in counters:
        for name, value in each.items():
            before = merged.get(name)
            if before is None:
                merged[name] = list(value) if isinstance(value, list) else value
            elif name == "sizes":
                merged[name] = _sum_of_sizes(before, value)
            elif isinstance(value, list):
                longest, other = (before, value) if len(before) >= len(value) else (value, before)
                merged[name] = [a + (other[at] if at < len(other) else 0) for at, a in enumerate(longest)]
            elif isinstance(value, (int, float)):
                merged[name] = max(before, value) if name in _HIGHEST else before + value
    return merged


def _sum_of_sizes(some: list[list[float]], others: list[list[float]]) -> list[list[float]]:
    """[items, calls, seconds] of each size, the smallest first."""
    calls = {size: [count, seconds] for size, count, seconds in some}
    for size, count, seconds in others:
        known = calls.setdefault(size, [0, 0.0])
        known[0] += count
        known[1] += seconds
    return [[size, *counted] for size, counted in sorted(calls.items())]
