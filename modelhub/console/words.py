"""How states look: each has a tone (a colour and a sign) beside its word, the same on every page."""

from __future__ import annotations

_TONES = {
    "good": ("loaded", "healthy", "succeeded", "resolved", "passed", "live", "approved", "done", "valid"),
    "busy": ("loading", "unloading", "queued", "running"),
    "warn": ("degraded", "unreachable", "acknowledged", "cancelled", "some refused", "missing", "stale", "expired"),
    "bad": ("error", "unhealthy", "failed", "open", "refused"),
}
_TONE_OF = {word: tone for tone, words in _TONES.items() for word in words}


def tone_of(word: str | None) -> str:
    """good, busy, warn, bad, or off for what neither serves nor fails: `unloaded`, `unknown`."""
    return _TONE_OF.get(str(word or "").lower(), "off")
