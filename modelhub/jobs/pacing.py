"""How many rows go into one request, and how long to rest after it, so that interactive requests hardly notice.

The door takes interactive requests first, so what one of them can lose to a job is the request that the model is at.
That is kept short: while nobody else asks the model, QUIET_SECONDS of its time; from the first interactive request on,
and until none has come for QUIET_AFTER_SECONDS, BUSY_SECONDS or one row, and at most BUSY_SHARE of the time.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

QUIET_SECONDS = 0.030
BUSY_SECONDS = 0.002
BUSY_SHARE = 0.10
QUIET_AFTER_SECONDS = 15.0
LOOK_SECONDS = 1.0
MOST_ROWS = 256
FIRST_ROWS = 4
MOST_BYTES = 1 << 20  # of one request's inputs
_GROWTH = 1.5
_FORGETTING = 1.02
_ON_ITS_WAY_SECONDS = 0.05  # from the model's process to here
_REMEMBERED = 4096


class Pace:
    """Rows of the next request by the time that the last ones took in the model. Threads may share it.

    most_rows: never more. is_busy: whether somebody else asks the model; see `Others`.

    What a request takes has two parts: waiting for others, which says nothing, and being computed. So what computing
    takes is judged by the quickest requests of late.
    """

    def __init__(self, most_rows: int | None = None, is_busy: Callable[[], bool] = lambda: False) -> None:
        self._most_rows = most_rows or MOST_ROWS
        self._is_busy = is_busy
        self._least_seconds = float("inf")  # of any request
        self._row_seconds = float("inf")  # of the quickest request, by its rows
        self._rows = FIRST_ROWS
        self._lock = threading.Lock()

    @property
    def rows(self) -> int:
        with self._lock:
            wanted = self._rows
            if self._is_busy():
                wanted = min(self._most_rows, int(BUSY_SECONDS / self._row_seconds))
            return max(1, min(wanted, self._most_rows))

    def took(self, rows: int, seconds: float) -> float:
        """After a request of so many rows that took the model so long: seconds to rest before the next one."""
        is_busy = self._is_busy()
        with self._lock:
            self._least_seconds = min(seconds, self._least_seconds * _FORGETTING)
            self._row_seconds = min(seconds / rows, self._row_seconds * _FORGETTING)
            if is_busy:
                computed = min(seconds, self._least_seconds + rows * self._row_seconds)
                return computed * (1 / BUSY_SHARE - 1)
            if seconds > QUIET_SECONDS:
                self._rows = max(1, int(rows * QUIET_SECONDS / seconds))
            elif rows >= self._rows and seconds < QUIET_SECONDS / _GROWTH:
                self._rows = min(self._most_rows, int(self._rows * _GROWTH) + 1)
            return 0.0


class Others:
    """Whether others ask the model: its process counts every request, and one's own are known. Looked at once a second.

    count: (requests that the process has answered since it began, unix time of the last one), or None where nobody
    knows.
    """

    def __init__(
        self,
        count: Callable[[], tuple[int, float] | None],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._count, self._clock, self._wall = count, clock, wall
        self._own = 0
        self._lately: deque[float] = deque(maxlen=_REMEMBERED)  # when one's own were answered, by the wall's clock
        self._base: tuple[int, int] | None = None  # all and one's own, as they were when the counting began
        self._most_foreign = 0
        self._last_count = 0
        self._looked_at = self._heard_at = float("-inf")
        self._lock = threading.Lock()

    def asked(self) -> None:
        """One of one's own requests was answered."""
        with self._lock:
            self._own += 1
            self._lately.append(self._wall())

    def are_there(self) -> bool:
        with self._lock:
            now = self._clock()
            if now - self._looked_at >= LOOK_SECONDS:
                self._looked_at = now
                self._look(now)
            return now - self._heard_at < QUIET_AFTER_SECONDS

    def _look(self, now: float) -> None:
        found = self._count()
        if found is None:
            return
        count, last_at = found
        # What it counted lags behind: those of one's own that were answered after its last one are not in it.
        own = self._own - sum(1 for at in self._lately if at > last_at + _ON_ITS_WAY_SECONDS)
        if self._base is None or count < self._last_count:  # the first look, or another process
            self._base, self._most_foreign = (count, own), 0
        self._last_count = count
        foreign = (count - self._base[0]) - (own - self._base[1])
        if foreign > self._most_foreign:
            self._most_foreign, self._heard_at = foreign, now
