"""W3C Trace Context (level 2): the headers that say which trace a request belongs to.

What cannot be read is as if it had not been sent: a broken header is never a reason to refuse a request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"

MAX_STATE_CHARS = 512
_MAX_MEMBERS = 32
_MAX_HIGHER_VERSION_CHARS = 256  # of a version that is not known yet
_SAMPLED = 0x01
_RANDOM = 0x02

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII | re.DOTALL)
_KEY = r"(?:[a-z][_0-9a-z\-*/]{0,255}|[a-z0-9][_0-9a-z\-*/]{0,240}@[a-z][_0-9a-z\-*/]{0,13})"
_MEMBER = re.compile(rf"({_KEY})=([\x20-\x2b\x2d-\x3c\x3e-\x7e]{{0,255}}[\x21-\x2b\x2d-\x3c\x3e-\x7e])", re.ASCII)


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The span of the caller that a request belongs to. state: its tracestate as it came, "" without a valid one."""

    trace_id: int
    span_id: int
    is_sampled: bool
    is_random: bool = False
    state: str = ""

    @property
    def hex_trace_id(self) -> str:
        return f"{self.trace_id:032x}"


def parse(traceparent: str | None, tracestate: str | None = None) -> TraceContext | None:
    """The caller's span; None without a header, and when it is not valid.

    Of a version that came after 00 only what 00 has is read, as the specification wants.
    """
    if traceparent is None or len(traceparent) > _MAX_HIGHER_VERSION_CHARS:
        return None
    match = _PARENT.fullmatch(traceparent)
    if match is None:
        return None
    version, trace_id, span_id, flags = match[1], int(match[2], 16), int(match[3], 16), int(match[4], 16)
    if version == "ff" or not trace_id or not span_id or (version == "00" and match[5] is not None):
        return None
    return TraceContext(
        trace_id, span_id, bool(flags & _SAMPLED), bool(flags & _RANDOM), valid_state(tracestate) if tracestate else ""
    )


def valid_state(tracestate: str) -> str:
    """The tracestate; "" when it is not valid, for then all of it is to be thrown away."""
    if len(tracestate) > MAX_STATE_CHARS:
        return ""
    members = [member.strip(" \t") for member in tracestate.split(",")]
    present = [member for member in members if member]
    if not present or len(present) > _MAX_MEMBERS:
        return ""
    keys = set()
    for member in present:
        match = _MEMBER.fullmatch(member)
        if match is None or match[1] in keys:
            return ""
        keys.add(match[1])
    return ",".join(present)


def of_headers(headers: dict[bytes, bytes]) -> TraceContext | None:
    """As `parse`, of an HTTP request's headers by lower-case name."""
    traceparent = headers.get(b"traceparent")
    if traceparent is None:
        return None
    tracestate = headers.get(b"tracestate")
    return parse(traceparent.decode("latin-1"), None if tracestate is None else tracestate.decode("latin-1"))
