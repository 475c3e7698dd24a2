"""How many rows go into one request, and how long to rest after it, so that interactive requests hardly notice.

The door takes interactive requests first, so what one of them can lose to a job is the request that the model is at.
While nobody else asks the model, that is QUIET_SECONDS of its time. From the first interactive request on, and until
none has come for QUIET_AFTER_SECONDS, it is either so short that it changes their latency little, and then may be
asked for again soon; or, where the model cannot be asked for as little, it is so rare that fewer than one in a hundred
of them meet it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

QUIET_SECONDS = 0.030
SHORT_SHARE = 0.3  # of the mean latency of interactive requests; their 99th percentile is twice that or more
SHORT_TIME_SHARE = 0.05
RARE_SECONDS = 0.002
RARE_TIME_SHARE = 0.008
MOST_REST_SECONDS = 2.0  # a job never stands still
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

    most_rows: never more. others: the latency of those who ask the model besides (see `Others.seconds`), None while
    nobody does.

    What a request takes has two parts: waiting for others, which says nothing, and being computed. So what computing
    takes is judged by the quickest requests of late.
    """

    def __init__(self, most_rows: int | None = None, others: Callable[[], float | None] = lambda: None) -> None:
        self._most_rows = most_rows or MOST_ROWS
        self._others = others
        self._least_seconds = float("inf")  # of any request
        self._row_seconds = float("inf")  # of the quickest request, by its rows
        self._rows = FIRST_ROWS
        self._lock = threading.Lock()

    @property
    def rows(self) -> int:
        with self._lock:
            latency = self._others()
            wanted = self._rows
            if latency is not None:
                wanted = self._rows_within(SHORT_SHARE * latency) or self._rows_within(RARE_SECONDS)
            return max(1, min(wanted, self._most_rows))

    def took(self, rows: int, seconds: float) -> float:
        """After a request of so many rows that took the model so long: seconds to rest before the next one."""
        with self._lock:
            latency = self._others()
            self._least_seconds = min(seconds, self._least_seconds * _FORGETTING)
            self._row_seconds = min(seconds / rows, self._row_seconds * _FORGETTING)
            if latency is not None:
                computed = min(seconds, self._least_seconds + rows * self._row_seconds)
                is_short = self._rows_within(SHORT_SHARE * latency) > 0
                share = SHORT_TIME_SHARE if is_short else RARE_TIME_SHARE
                return min(MOST_REST_SECONDS, computed * (1 / share - 1))
            if seconds > QUIET_SECONDS:
                self._rows = max(1, int(rows * QUIET_SECONDS / seconds))
            elif rows >= self._rows and seconds < QUIET_SECONDS / _GROWTH:
                self._rows = min(self._most_rows, int(self._rows * _GROWTH) + 1)
            return 0.0

    def _rows_within(self, seconds: float) -> int:
        """How many can be computed in so long; 0 when not even one can."""
        if self._row_seconds == float("inf"):
            return 0
        return max(0, int((seconds - self._least_seconds) / self._row_seconds))


class Answered(NamedTuple):
    """What a model's process has answered since it began. seconds: sum of the latencies. last_at: unix time."""

    requests: int
    seconds: float
    last_at: float


class Others:
    """Whether others ask the model, and how fast they are answered: its process counts every request, and one's own
    are known. Looked at once a second.

    count: see `Answered`; None where nobody knows.
    """

    def __init__(
        self,
        count: Callable[[], Answered | None],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._count, self._clock, self._wall = count, clock, wall
        self._own, self._own_seconds = 0, 0.0
        # When one's own were answered, by the wall's clock, and what they took.
        self._lately: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)
        self._base: tuple[int, int] | None = None  # all and one's own, as they were when the counting began
        self._most_foreign = self._last_count = 0
        self._foreign_seconds = self._latency = 0.0
        self._looked_at = self._heard_at = float("-inf")
        self._lock = threading.Lock()

    def asked(self, seconds: float) -> None:
        """One of one's own requests was answered, and took the model so long."""
        with self._lock:
            self._own += 1
            self._own_seconds += seconds
            self._lately.append((self._wall(), seconds))

    def seconds(self) -> float | None:
        """The mean latency of the others' last requests; 0.0 when it is not known, None when there are no others."""
        with self._lock:
            now = self._clock()
            if now - self._looked_at >= LOOK_SECONDS:
                self._looked_at = now
                self._look(now)
            return self._latency if now - self._heard_at < QUIET_AFTER_SECONDS else None

    def _look(self, now: float) -> None:
        found = self._count()
        if found is None:
            return
        count = found.requests
        # What it counted lags behind: those of one's own that were answered after its last one are not in it.
        left_out = [took for at, took in self._lately if at > found.last_at + _ON_ITS_WAY_SECONDS]
        own = self._own - len(left_out)
        foreign_seconds = found.seconds - (self._own_seconds - sum(left_out))
        if self._base is None or count < self._last_count:  # the first look, or another process
            self._base, self._most_foreign, self._foreign_seconds = (count, own), 0, foreign_seconds
        self._last_count = count
        foreign = (count - self._base[0]) - (own - self._base[1])
        more = foreign - self._most_foreign
        if more > 0:
            self._latency = max(0.0, foreign_seconds - self._foreign_seconds) / more
            self._most_foreign, self._foreign_seconds, self._heard_at = foreign, foreign_seconds, now
