"""A model that fails at everything writes a bounded log."""

from __future__ import annotations

import pytest

from loaderd.worker.failures import KINDS, WINDOW_SECONDS, FailureLog


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_each_kind_of_failure_is_written_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    failures = FailureLog(clock)
    for _ in range(100):
        failures.note(ValueError("broken"))
        failures.note(KeyError("broken"))
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError, KeyError]
    caplog.clear()
    clock.now = WINDOW_SECONDS
    failures.note(ValueError("broken"))
    assert caplog.messages == [
        "198 more predictions failed since; their tracebacks are left out",
        "prediction failed",
    ]


def test_failures_that_all_differ_are_bounded_too(caplog: pytest.LogCaptureFixture) -> None:
    failures = FailureLog(Clock())
    for number in range(1000):
        failures.note(ValueError(f"item {number}"))
    assert len(caplog.records) == KINDS
