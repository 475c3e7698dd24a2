"""Server-sent events."""

from __future__ import annotations

from typing import Any

import orjson

HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # a proxy before us must not gather them
)
DONE = b"data: [DONE]\n\n"


def event(value: Any) -> bytes:
    return b"data: " + orjson.dumps(value, default=str) + b"\n\n"
