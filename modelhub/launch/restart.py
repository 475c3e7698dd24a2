"""When a part that died starts again: a pure decision."""

from __future__ import annotations

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0
STABLE_SECONDS = 10.0


def delay_after_death(lived_seconds: float, previous_delay_seconds: float | None) -> float:
    """Seconds to wait before the next start: doubled after each quick death, short again after a stable life.

    previous_delay_seconds: None when it had not died before.
    """
    if previous_delay_seconds is None or lived_seconds >= STABLE_SECONDS:
        return FIRST_DELAY_SECONDS
    return min(previous_delay_seconds * 2, LONGEST_DELAY_SECONDS)
