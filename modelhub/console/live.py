"""One producer for all who watch: what many pages show is made once a second in this process, by whoever asks first."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Made = TypeVar("Made")

MAX_AGE_SECONDS = 1.0


class Shared(Generic[Made]):
    """A value that is made anew when it is older than `max_age_seconds` and somebody asks for it.

    `get()` returns it. While one thread makes it the others wait for that one, so however many viewers there are, the
    database is asked once. What making it raises reaches whoever made it; the next one tries again.
    """

    def __init__(self, make: Callable[[], Made], max_age_seconds: float = MAX_AGE_SECONDS) -> None:
        self._make = make
        self._max_age_seconds = max_age_seconds
        self._lock = threading.Lock()
        self._made: tuple[float, Made] | None = None

    def get(self) -> Made:
        asked_at = time.monotonic()
        with self._lock:
            # Begun after this call, or young enough: what was made while we waited for the lock may be either.
            if self._made is None or asked_at - self._made[0] >= self._max_age_seconds:
                began_at = time.monotonic()
                self._made = (began_at, self._make())
            return self._made[1]

    def forget(self) -> None:
        """What is asked for next is made anew: somebody just changed something and wants to see it."""
        with self._lock:
            self._made = None
