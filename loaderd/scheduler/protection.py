"""Which models may not be evicted, for good or for now, and how a person is told."""

from __future__ import annotations

import math

from loaderd.scheduler.snapshot import Claim, Wish
from loaderd.scheduler.wording import duration, requests


def for_good(claim: Claim, wish: Wish) -> str:
    """Why this load may never evict it, however long it waits; "" when it may."""
    if claim.pinned:
        return "pinned"
    if claim.priority > wish.priority:
        return f"priority {claim.priority} is above {wish.priority}"
    if claim.model_id in wish.protected:
        return "has to stay beside this load"
    return ""


def for_now(claim: Claim, min_residency_seconds: float) -> str:
    """Why a loaded model may not be evicted at this moment; "" when it may."""
    if claim.in_flight > 0:
        return f"{requests(claim.in_flight)} in flight"
    if is_young(claim, min_residency_seconds):
        return f"loaded {duration(claim.resident_seconds)} ago"
    return claim.protected


def is_young(claim: Claim, min_residency_seconds: float) -> bool:
    return claim.resident_seconds < min_residency_seconds


def residency_left_seconds(claim: Claim, min_residency_seconds: float) -> float:
    """Rounded up to the millisecond, so that who waits for it does not come a moment too early."""
    return math.ceil((min_residency_seconds - claim.resident_seconds) * 1000) / 1000
