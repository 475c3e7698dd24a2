"""`GET /metrics`: the supervisor's figures of the models, and the door's own, as Prometheus text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class DoorCounts:
    """Requests of one door. by_class: answered ones by the first digit of their status."""

    __slots__ = ("by_class", "in_flight")

    def __init__(self) -> None:
        self.by_class: Counter[int] = Counter()
        self.in_flight = 0


def counts_of(doors: Mapping[str, DoorCounts], shadow_dropped: int) -> dict[str, Any]:
    """What one gateway counted, for those that share its port."""
    return {
        "shadow_dropped": shadow_dropped,
        "doors": {
            name: {"in_flight": counts.in_flight, "by_class": {str(key): n for key, n in counts.by_class.items()}}
            for name, counts in doors.items()
        },
    }


def with_others(
    doors: Mapping[str, DoorCounts], shadow_dropped: int, others: Iterable[Mapping[str, Any]]
) -> tuple[dict[str, DoorCounts], int]:
    """The sum of one's own counts and of what other gateways told by `counts_of`."""
    summed: dict[str, DoorCounts] = {}
    for told in (counts_of(doors, shadow_dropped), *others):
        for name, counts in told["doors"].items():
            door = summed.setdefault(name, DoorCounts())
            door.in_flight += counts["in_flight"]
            door.by_class.update({int(key): n for key, n in counts["by_class"].items()})
    return summed, shadow_dropped + sum(told["shadow_dropped"] for told in others)


def exposition(doors: dict[str, DoorCounts], shadow_dropped: int) -> str:
    """The door's own part. Series: two doors with five classes at most."""
    lines = [
        "# HELP modelhub_gateway_requests_total Requests answered at the inference door, by class of status.",
        "# TYPE modelhub_gateway_requests_total counter",
        *(
            f'modelhub_gateway_requests_total{{door="{door}",status="{status}xx"}} {count}'
            for door, counts in doors.items()
            for status, count in sorted(counts.by_class.items())
        ),
        "# HELP modelhub_gateway_requests_in_flight Requests that are not answered yet.",
        "# TYPE modelhub_gateway_requests_in_flight gauge",
        *(f'modelhub_gateway_requests_in_flight{{door="{door}"}} {counts.in_flight}' for door, counts in doors.items()),
        "# HELP modelhub_gateway_shadow_dropped_total Copies for candidates that were not sent: too many under way.",
        "# TYPE modelhub_gateway_shadow_dropped_total counter",
        f"modelhub_gateway_shadow_dropped_total {shadow_dropped}",
    ]
    return "\n".join(lines) + "\n"
