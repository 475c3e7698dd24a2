"""Tracebacks of failed predictions in the model's log: each kind once a minute, the rest as a number.

A model that fails at every request would otherwise spend its time on, and fill the disk with, one traceback.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

WINDOW_SECONDS = 60.0
KINDS = 20  # in one window; a message that names its input makes every failure one of its own kind
_TEXT_CHARACTERS = 200


class FailureLog:
    """Used by one thread. clock: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends_at = clock() + WINDOW_SECONDS
        self._seen: set[tuple[type[BaseException], str]] = set()
        self._left_out = 0

    def note(self, error: BaseException) -> None:
        """Logs the error with its traceback if it is the first of its class and text in this minute."""
        now = self._clock()
        if now >= self._ends_at:
            self._begin_window(now)
        kind = type(error), str(error)[:_TEXT_CHARACTERS]
        if kind in self._seen or len(self._seen) >= KINDS:
            self._left_out += 1
            return
        self._seen.add(kind)
        log.error("prediction failed", exc_info=error)

    def _begin_window(self, now: float) -> None:
        if self._left_out:
            log.error("%d more predictions failed since; their tracebacks are left out", self._left_out)
        self._ends_at = now + WINDOW_SECONDS
        self._seen.clear()
        self._left_out = 0
