"""What a model process tells beside an answer."""

from __future__ import annotations

from typing import Any

import orjson

from loaderd import wire


def take_told(message: wire.Message) -> dict[str, Any]:
    """{"trace", "others_seconds"}, what of it was told (see wire); the answer's head becomes that of one which tells
    nothing but its length and, where that was asked for, the usage."""
    if not message.head.startswith(b"{"):
        return {}
    told: dict[str, Any] = orjson.loads(message.head)
    header_bytes = told.pop("header_bytes", None)
    if "usage" in told:
        message.head = orjson.dumps({"header_bytes": header_bytes, "usage": told.pop("usage")})
    else:
        message.head = b"" if header_bytes is None else b"%d" % header_bytes
    return told
