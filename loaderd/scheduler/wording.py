"""Figures and lists as people read them."""

from __future__ import annotations

from collections.abc import Sequence

MIB = 2**20
GIB = 2**30
NAMED_AT_MOST = 5


def size(count: int) -> str:
    """ "0 MiB", "0.4 MiB", "210 MiB", "1.2 GiB"."""
    sign, count = ("-" if count < 0 else ""), abs(count)
    if count >= GIB:
        return f"{sign}{count / GIB:.1f} GiB"
    if 0 < count < 10 * MIB:
        return f"{sign}{max(count / MIB, 0.1):.1f} MiB"
    return f"{sign}{count / MIB:.0f} MiB"


def duration(seconds: float) -> str:
    """ "4 s", "12 min", "3 h", "2 days"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86400:.0f} days"


def listed(names: Sequence[str], joint: str = "and") -> str:
    """ "A", "A and B", "A, B and C"; past five "A, B, C, D, E and 7 more"."""
    if len(names) > NAMED_AT_MOST:
        names = [*names[:NAMED_AT_MOST], f"{len(names) - NAMED_AT_MOST} more"]
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} {joint} {names[-1]}"


def percent(share: float) -> str:
    """ "2 %"; a share that is not zero is never shown as 0 %."""
    return f"{share * 100:.0f} %" if share == 0 or share >= 0.005 else "under 1 %"


def minutes(count: int) -> str:
    return "1 minute" if count == 1 else f"{count} minutes"


def requests(count: int) -> str:
    return "1 request" if count == 1 else f"{count} requests"
