"""Until when a request may take: from its first byte to its answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass(slots=True)
class Deadline:
    """seconds: the limit that was set, for the sentence of who passes it. at: by the event loop's clock."""

    seconds: float
    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        return cls(seconds, asyncio.get_running_loop().time() + seconds)
