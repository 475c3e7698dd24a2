"""How long those wait who want an answer now, for bulk work to go by: it is told with each of its own answers."""

from __future__ import annotations

RECENT_SECONDS = 5.0
_NEWEST = 0.05  # of the mean is the newest request's


class Interest:
    """Of one model process, by one clock that the caller reads."""

    def __init__(self) -> None:
        self._latency_seconds = 0.0
        self._at = float("-inf")

    def answered(self, latency_seconds: float, now: float) -> None:
        """Somebody who waited has the answer, or the next piece of a text."""
        if now - self._at >= RECENT_SECONDS:
            self._latency_seconds = latency_seconds
        else:
            self._latency_seconds += (latency_seconds - self._latency_seconds) * _NEWEST
        self._at = now

    def latency_seconds(self, now: float) -> float | None:
        """Mean over the newest requests, from arrival in the process to the answer; None: nobody has asked of late."""
        return self._latency_seconds if now - self._at < RECENT_SECONDS else None
