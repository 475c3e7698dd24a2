"""The log of slow requests: one line of JSON for each, without what was asked."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson

from loaderd.gateway.observing.course import Course

log = logging.getLogger(__name__)

LINES_PER_SECOND = 20
PREFIX = "slow request "

Later = Callable[[float, Callable[[], object]], object]
"""Has something called after so many seconds."""


class SlowLog:
    """At most LINES_PER_SECOND lines in any second that begins with one; how many more there would have been is said
    at its end. count: of all slow requests so far."""

    def __init__(self, later: Later) -> None:
        self.count = 0
        self._later = later
        self._lines_left = LINES_PER_SECOND
        self._left_out = 0
        self._is_counting = False

    def write(self, course: Course, status: int, seconds: float, at: float) -> None:
        """status: of the HTTP answer, 0 when the client left before it. at: unix time of the end."""
        self.count += 1
        if not self._is_counting:
            self._is_counting = True
            self._later(1.0, self._begin_anew)
        if not self._lines_left:
            self._left_out += 1
            return
        self._lines_left -= 1
        log.warning("%s%s", PREFIX, orjson.dumps(told(course, status, seconds, at)).decode())

    def _begin_anew(self) -> None:
        if self._left_out:
            log.warning("%d more slow requests within the same second", self._left_out)
        self._lines_left, self._left_out, self._is_counting = LINES_PER_SECOND, 0, False


def told(course: Course, status: int, seconds: float, at: float) -> dict[str, Any]:
    """What the line says; what is not known is left out."""
    facts = {
        "at": datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds"),
        "model_id": course.model_id,
        "version": course.version,
        "door": course.door,
        "method": course.method,
        "path": course.path,
        "status": status or None,
        "error": course.error_code,
        "total_seconds": _rounded(seconds),
        "queue_seconds": _rounded(course.queue_seconds),
        "compute_seconds": _rounded(course.compute_seconds),
        "first_part_seconds": None if course.first_part_at is None else _rounded(course.first_part_at - course.began),
        "items": course.items,
        "batch_items": course.batch_items,
        "cache": course.kept,
        "request_bytes": course.request_bytes,
        "response_bytes": course.response_bytes,
        "user": course.user,
        "trace_id": f"{course.trace_id:032x}" if course.trace_id else "",
        "request_id": course.request_id,
    }
    return {name: value for name, value in facts.items() if value not in (None, "")}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None or not math.isfinite(seconds) else round(seconds, 6)
