"""What a model's counts are before a test adds to them."""

from __future__ import annotations

import time
from typing import Any

import httpx

from tests.deadline import wait_until

#: The gateway tells of lost requests every 5 s, the supervisor of all that was counted every second.
_TOLD_SECONDS = 7.0


def settled(api: httpx.Client, model_id: str) -> dict[str, Any]:
    """Returns a model's detail once loaderd was heard so long after now that all counts of earlier requests are in."""
    began_at = time.time()

    def heard_at() -> float:
        return float(api.get("/api/models/health").json()["loaderd"]["observed_at"])

    wait_until(lambda: heard_at() > began_at + _TOLD_SECONDS, 40, "loaderd is heard")
    detail: dict[str, Any] = api.get(f"/api/models/{model_id}").json()
    return detail
