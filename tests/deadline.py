"""Waiting in tests: for a condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], timeout_seconds: float = 20.0, what: str = "") -> None:
    """Returns when `condition()` is true; fails the test when it does not become true in time."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what or condition} did not come true in {timeout_seconds:g} s"
        time.sleep(0.02)
