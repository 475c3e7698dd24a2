"""When a model whose process died is started again, and when no more: counted here, carried out by its Recovery, or
while others serve it by its Refilling."""

from __future__ import annotations

import time
from dataclasses import dataclass

from loaderd.supervisor.model.house import ModelHouse
from loaderd.supervisor.model_process import ModelProcess


@dataclass(frozen=True, slots=True)
class Restart:
    """One more attempt: the `attempt`-th in a row, after a pause."""

    attempt: int
    pause_seconds: float


@dataclass(slots=True)
class Restarts:
    """Counts deaths in a row.

    first_pause_seconds: before the second restart; the first is at once, each further pause is twice as long, up to
    max_pause_seconds. stable_seconds: a process that lived loaded for so long begins a new count. tried: attempts
    that were no restarts, so 1 during a load that somebody asked for.
    """

    first_pause_seconds: float = 0.5
    max_pause_seconds: float = 30.0
    stable_seconds: float = 60.0
    tried: int = 0
    restarts: int = 0

    def begin(self, tried: int = 0) -> None:
        """Forgets what died before: somebody asked for a load (tried=1), or that load is done."""
        self.tried, self.restarts = tried, 0

    def resume(self, restart: Restart) -> None:
        """Counts as it was counted up to this restart: the load that came between was cancelled."""
        self.tried, self.restarts = 0, restart.attempt

    def died(self, loaded_seconds: float, max_attempts: int) -> Restart | None:
        """The next attempt after a death, or None when enough were made.

        loaded_seconds: how long the process answered before it died, 0.0 when it died while loading.
        """
        if loaded_seconds >= self.stable_seconds:
            self.begin()
        if self.tried + self.restarts >= max_attempts:
            return None
        self.restarts += 1
        return Restart(self.tried + self.restarts, self._pause_seconds())

    def _pause_seconds(self) -> float:
        if self.restarts <= 1:
            return 0.0
        doublings = min(self.restarts - 2, 32)  # so that a float is never asked for more than it can hold
        return min(self.first_pause_seconds * 2.0**doublings, self.max_pause_seconds)


class Attempts:
    """One model's. newest: what follows the newest death that was counted; None: nothing does."""

    def __init__(self, house: ModelHouse) -> None:
        config = house.config
        self.restarts = Restarts(config.restart_pause_seconds, config.max_restart_pause_seconds, config.stable_seconds)
        self.newest: Restart | None = None
        self._house = house
        self._counted_at = float("-inf")

    @property
    def limit(self) -> int:
        """How many there are in a row at most."""
        return self._house.rules.max_load_attempts

    def count_death(self, process: ModelProcess) -> Restart | None:
        """The attempt that follows a process' death, by how long it served itself; the one counted already when it
        served before the newest death was counted, because they are taken for one: so many at once are one attempt."""
        lived = time.monotonic() - process.serves_since
        is_another = process.serves_since >= self._counted_at or lived >= self.restarts.stable_seconds
        return self.count(lived) if self.newest is None or is_another else self.newest

    def count(self, lived_seconds: float) -> Restart | None:
        self.newest = self.restarts.died(lived_seconds, self.limit)
        self._counted_at = time.monotonic()
        return self.newest

    def sentence(self, restart: Restart) -> str:
        return f"it is started again in {restart.pause_seconds:.1f} s, attempt {restart.attempt} of {self.limit}"
