"""How many rows go into one request, and how long to rest after it, so that interactive requests hardly notice.

The door takes interactive requests first, so what one of them can lose to a job is the request that the model is at.
While nobody else asks the model, that is QUIET_SECONDS of its time. From the first answer on that tells of others
(the model's process knows), and until none has told of them for QUIET_AFTER_SECONDS, it is either so short that it
changes their latency little, and then may be asked for again soon; or, where the model cannot be asked for as little,
it is so rare that fewer than one in a hundred of them meet it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

QUIET_SECONDS = 0.030
SHORT_SHARE = 0.3  # of the mean latency of interactive requests; their 99th percentile is twice that or more
SHORT_TIME_SHARE = 0.05
RARE_SECONDS = 0.002
RARE_TIME_SHARE = 0.008
MOST_REST_SECONDS = 2.0  # a job never stands still
QUIET_AFTER_SECONDS = 5.0  # beside what the model's process remembers: of several each has its own view
MOST_ROWS = 256
FIRST_ROWS = 4
MOST_BYTES = 1 << 20  # of one request's inputs
_GROWTH = 1.5
_FORGETTING = 1.02


class Pace:
    """Rows of the next request by the time that the last ones took in the model. Threads may share it.

    most_rows: never more.

    What a request takes has two parts: waiting for others, which says nothing, and being computed. So what computing
    takes is judged by the quickest requests of late.
    """

    def __init__(self, most_rows: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_rows = most_rows or MOST_ROWS
        self._clock = clock
        self._latency, self._heard_at = 0.0, float("-inf")  # of others
        self._least_seconds = float("inf")  # of any request
        self._row_seconds = float("inf")  # of the quickest request, by its rows
        self._rows = FIRST_ROWS
        self._lock = threading.Lock()

    @property
    def rows(self) -> int:
        with self._lock:
            wanted = self._rows
            if self._has_others:
                short = min(SHORT_SHARE * self._latency, QUIET_SECONDS)
                wanted = self._rows_within(short) or self._rows_within(RARE_SECONDS)
            return max(1, min(wanted, self._most_rows))

    def took(self, rows: int, seconds: float, others_seconds: float | None) -> float:
        """After a request of so many rows that took the model so long: seconds to rest before the next one.

        others_seconds: the mean latency of those who ask the model besides, None while nobody does.
        """
        with self._lock:
            if others_seconds is not None:
                self._latency, self._heard_at = others_seconds, self._clock()
            self._least_seconds = min(seconds, self._least_seconds * _FORGETTING)
            self._row_seconds = min(seconds / rows, self._row_seconds * _FORGETTING)
            if self._has_others:
                computed = min(seconds, self._least_seconds + rows * self._row_seconds)
                is_short = self._rows_within(SHORT_SHARE * self._latency) > 0
                share = SHORT_TIME_SHARE if is_short else RARE_TIME_SHARE
                return min(MOST_REST_SECONDS, computed * (1 / share - 1))
            if seconds > QUIET_SECONDS:
                self._rows = max(1, int(rows * QUIET_SECONDS / seconds))
            elif rows >= self._rows and seconds < QUIET_SECONDS / _GROWTH:
                self._rows = min(self._most_rows, int(self._rows * _GROWTH) + 1)
            return 0.0

    @property
    def _has_others(self) -> bool:
        return self._clock() - self._heard_at < QUIET_AFTER_SECONDS

    def _rows_within(self, seconds: float) -> int:
        """How many can be computed in so long; 0 when not even one can."""
        if self._row_seconds == float("inf"):
            return 0
        return max(0, int((seconds - self._least_seconds) / self._row_seconds))
