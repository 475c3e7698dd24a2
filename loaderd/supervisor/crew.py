"""The processes that serve one loaded model together: one, or as many as its `instances` say.

Each has its own copy of the model, its own data socket and its own counters; what their files map they share. For
everybody else they are one: asked, counted and ended together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from loaderd.errors import LoaderdError
from loaderd.supervisor.knocking import knock
from loaderd.supervisor.model_process import ModelProcess

SAMPLE_SECONDS = 2.0

_HIGHEST = frozenset({"busy_seconds", "last_at", "started_at"})


class Crew:
    """processes: those that live, the oldest first; never empty once the model is loaded."""

    def __init__(self, first: ModelProcess) -> None:
        self.processes = [first]
        self._wanted = 1
        self._started_at: float | None = None  # of the first one: to those who count it is one process all the time
        self._gone: list[Mapping[str, Any]] = []  # the last counters of those that died
        self._suspects: list[ModelProcess] = []  # did not answer, or refused, when asked last

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
    def missing(self) -> int:
        """How many of the wanted processes there are not."""
        return self._wanted - len(self.processes)

    def add(self, process: ModelProcess) -> None:
        self.processes.append(process)
        self._wanted = max(self._wanted, len(self.processes))

    def lose(self, process: ModelProcess) -> None:
        """One of several died; what it counted stays counted."""
        self.processes.remove(process)
        self._gone.append({**process.counters, "in_flight": 0, "queued": 0, "busy_seconds": 0.0})

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
            merged = _sum([*told, *self._gone])
            newest = max(told, key=lambda counters: float(counters.get("last_at", 0.0)))
            merged["last_error"] = newest.get("last_error", "")
        if self._started_at is not None:
            merged["started_at"] = self._started_at
        if self._wanted > 1:
            merged["processes"], merged["missing_processes"] = len(self.processes), self.missing
        return merged

    async def sample(self) -> bool:
        """Takes in all counters; False when a process does not answer (stuck in C code, stopped, dead)."""
        answered = await asyncio.gather(*(_sample(process) for process in self.processes))
        self._suspects = [each for each, answers in zip(self.processes, answered, strict=False) if not answers]
        return all(answered)

    async def door_answers(self) -> bool | None:
        """Whether clients get through: False when a data socket refuses them though its process lives and answers over
        its channel; None when no answer came in time."""
        answers: bool | None = True
        for process in list(self.processes):
            found = await knock(process.data_socket, SAMPLE_SECONDS)
            if found is False:  # so does one that is dying, and its channel is silent then
                found = await knock(process.data_socket, SAMPLE_SECONDS) if await _sample(process) else None
            if found is False:
                self._suspects = [process]
                return False
            answers = answers if found else None
        return answers

    async def canary(self) -> dict[str, Any]:
        """What the canary came to: the first that fails, else the slowest. Raises ModelProcessDied."""
        worst: dict[str, Any] = {}
        for process in list(self.processes):
            self._suspects = [process]  # the one that hangs, if this does not return
            result = await process.canary()
            if not result.get("ok"):
                return result
            if not worst or (result.get("seconds") or 0.0) > (worst.get("seconds") or 0.0):
                worst = result
        self._suspects = []
        return worst

    async def drain(self) -> None:
        """Returns when nothing is in flight any more and the last counters are in. Raises ModelProcessDied."""
        await asyncio.gather(*(process.drain() for process in self.processes))

    async def end(self) -> None:
        """Kills and reaps all; their memory is back when this returns."""
        await asyncio.gather(*(process.end() for process in self.processes))

    def end_hung(self, why: str) -> None:
        """Kills what does not answer any more: those that did not when asked last, else the one in the longest call."""
        suspects = [process for process in self.processes if process in self._suspects]
        if not suspects:
            suspects = [max(self.processes, key=lambda p: float(p.counters.get("busy_seconds", 0.0)))]
        for process in suspects:
            process.end_hung(why)


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
