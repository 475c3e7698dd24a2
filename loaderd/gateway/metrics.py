"""`GET /metrics`: the supervisor's figures of the models, and the door's own, as Prometheus text."""

from __future__ import annotations

from collections import Counter

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class DoorCounts:
    """Requests of one door. by_class: answered ones by the first digit of their status."""

    __slots__ = ("by_class", "in_flight")

    def __init__(self) -> None:
        self.by_class: Counter[int] = Counter()
        self.in_flight = 0


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
