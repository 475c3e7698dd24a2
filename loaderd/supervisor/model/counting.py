"""What one model's processes counted, and how much of it was reported as usage."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from loaderd.reporter import Usage
from loaderd.states import ModelState
from loaderd.supervisor.model.house import ModelHouse
from loaderd.supervisor.model.life import Life


class Counting:
    """Its caller tells when new processes begin."""

    def __init__(self, life: Life, house: ModelHouse) -> None:
        self._life = life
        self._house = house
        self._reported: dict[str, Any] = {}  # the counters as of the last usage report

    def begin(self) -> None:
        """New processes count from nothing."""
        self._reported = {}

    async def count(self) -> dict[str, Any] | None:
        """Samples the processes' counters and reports what was added since the last time; None: one of them gave no
        answer in time."""
        life, crew = self._life, self._life.crew
        if crew is None or life.state is not ModelState.LOADED or not await crew.sample():
            return None
        if life.crew is crew:
            life.runtime = replace(life.runtime, answered_at=time.time())
            self.report_usage()
        return crew.counters

    def report_usage(self) -> None:
        """Reports the difference between the counters in hand and those last reported."""
        if self._life.crew is None:
            return
        now, before = self._life.crew.counters, self._reported
        requests = now.get("requests", 0) - before.get("requests", 0)
        if requests > 0:
            self._house.report(
                Usage(
                    model_id=self._life.model_id,
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
        """Requests in the processes as of the last look: being computed or queued."""
        crew = self._life.crew
        return int(crew.counters.get("in_flight", 0)) if crew else 0
