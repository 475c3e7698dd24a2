"""The log of slow requests by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from loaderd.gateway.observing.course import Course
from loaderd.gateway.observing.slow import LINES_PER_SECOND, PREFIX, SlowLog


@pytest.fixture
def later() -> list[Callable[[], object]]:
    """What is to be called a second later."""
    return []


@pytest.fixture
def slow(later: list[Callable[[], object]]) -> SlowLog:
    return SlowLog(lambda seconds, call: later.append(call))


def course(**known: Any) -> Course:
    made = Course("public", "POST", "/v2/models/echo/infer", "/v2/models/{model}/infer", 10.0)
    for name, value in known.items():
        setattr(made, name, value)
    return made


def test_the_line_says_what_is_known(slow: SlowLog, caplog: pytest.LogCaptureFixture) -> None:
    slow.write(
        course(
            user="ada",
            model_id="echo-v1",
            version="1",
            trace_id=0xABC,
            queue_seconds=0.25,
            compute_seconds=1.0,
            items=3,
            batch_items=8,
            first_part_at=11.0,
            request_bytes=100,
            response_bytes=200,
            request_id="r-1",
        ),
        200,
        1.5,
        1_700_000_000.25,
    )
    (message,) = caplog.messages
    assert orjson.loads(message.removeprefix(PREFIX)) == {
        "at": "2023-11-14T22:13:20.250+00:00",
        "model_id": "echo-v1",
        "version": "1",
        "door": "public",
        "method": "POST",
        "path": "/v2/models/echo/infer",
        "status": 200,
        "total_seconds": 1.5,
        "queue_seconds": 0.25,
        "compute_seconds": 1.0,
        "first_part_seconds": 1.0,
        "items": 3,
        "batch_items": 8,
        "request_bytes": 100,
        "response_bytes": 200,
        "user": "ada",
        "trace_id": "00000000000000000000000000000abc",
        "request_id": "r-1",
    }


def test_what_is_not_known_is_left_out(slow: SlowLog, caplog: pytest.LogCaptureFixture) -> None:
    slow.write(course(error_code="client_left"), 0, 2.0, 0.0)
    told = orjson.loads(caplog.messages[0].removeprefix(PREFIX))
    assert sorted(told) == ["at", "door", "error", "method", "path", "total_seconds"]


def test_a_flood_is_counted_and_not_written(
    slow: SlowLog, later: list[Callable[[], object]], caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(LINES_PER_SECOND + 30):
        slow.write(course(), 200, 1.0, 0.0)
    assert len(caplog.messages) == LINES_PER_SECOND
    (end_of_second,) = later
    later.clear()
    end_of_second()
    assert caplog.messages[-1] == "30 more slow requests within the same second"
    assert slow.count == LINES_PER_SECOND + 30
    caplog.clear()
    slow.write(course(), 200, 1.0, 0.0)
    assert len(caplog.messages) == 1
    later.pop()()
    assert (len(caplog.messages), later) == (1, [])
