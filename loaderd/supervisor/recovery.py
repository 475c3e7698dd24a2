"""When a model whose process died is started again, and when no more: counted here, carried out by its ManagedModel."""

from __future__ import annotations

from dataclasses import dataclass


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
