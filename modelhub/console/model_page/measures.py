"""The tab Metrics: latency, rate, errors and memory of a window, as charts and as figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelhub.console.templatetags.console import rate
from modelhub.registry.models import ModelVersion
from modelhub.telemetry.queries import series, summary

# Its name in the address -> its title, and how long it is.
WINDOWS: Mapping[str, tuple[str, int]] = {
    "1h": ("1 hour", 3600),
    "24h": ("24 hours", 24 * 3600),
    "7d": ("7 days", 7 * 24 * 3600),
}
DEFAULT = "1h"
POINTS = 120
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart. data: as console.js draws it. told: what it shows, for who does not see it."""

    key: str
    title: str
    data: Mapping[str, Any]
    told: str


@dataclass(frozen=True, slots=True)
class Measures:
    """A window of one model. charts: none when nothing was measured in it."""

    window: str
    title: str
    figures: Mapping[str, Any]
    charts: Sequence[Chart]

    @property
    def pace(self) -> str:
        """Requests a second, or a minute where a second says nothing."""
        per_second = self.figures["requests_per_second"]
        if 0 < per_second < 0.05:
            return f"{60 * per_second:.2g}/min"
        return rate(per_second)

    @property
    def windows(self) -> list[tuple[str, str]]:
        return [(name, title) for name, (title, _) in WINDOWS.items()]


def measures(version: ModelVersion, window: str) -> Measures:
    """Two queries. A window that nobody knows is the shortest."""
    name = window if window in WINDOWS else DEFAULT
    title, window_seconds = WINDOWS[name]
    figures = summary(version, window_seconds)
    points = series(version, window_seconds, points=POINTS)
    is_measured = any(point["requests"] or point["private_bytes"] is not None for point in points)
    return Measures(name, title, figures, _charts(points, figures) if is_measured else [])


def _charts(points: Sequence[Mapping[str, Any]], figures: Mapping[str, Any]) -> list[Chart]:
    at = [point["at"].isoformat() for point in points]
    latency = figures["latency_ms"]

    def chart(
        key: str, title: str, unit: str, told: str, lines: Mapping[str, tuple[Any, Callable[[Any], Any]]]
    ) -> Chart:
        drawn = [
            {"name": name, "values": [_rounded(value(point)) for point in points], "colour": colour}
            for name, (colour, value) in lines.items()
        ]
        return Chart(key, title, {"labels": at, "series": drawn, "unit": unit}, told)

    has_gpu = any(point["gpu_bytes"] for point in points)
    memory = {"held": (1, _in_mib("private_bytes"))} | ({"on the GPU": (4, _in_mib("gpu_bytes"))} if has_gpu else {})
    return [
        chart(
            "latency",
            "Latency",
            "ms",
            f"50 % of the requests were answered within {_told(latency['p50'])} ms, 95 % within "
            f"{_told(latency['p95'])} ms, 99 % within {_told(latency['p99'])} ms.",
            {name: (colour, _quantile(name)) for name, colour in (("p50", 2), ("p95", 1), ("p99", 4))},
        ),
        chart(
            "rate",
            "Requests",
            "/s",
            f"{figures['requests']} requests, {figures['requests_per_second']:.2f} a second.",
            {"requests": (1, lambda point: point["requests_per_second"])},
        ),
        chart(
            "errors",
            "Errors",
            "%",
            f"{figures['errors']} of {figures['requests']} requests failed.",
            {"failed": (8, lambda point: 100 * point["error_rate"] if point["requests"] else None)},
        ),
        chart(
            "memory",
            "Memory",
            "MiB",
            f"At most {(figures['private_bytes_max'] or 0) / MIB:.0f} MiB were held.",
            memory,
        ),
    ]


def _quantile(name: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda point: point["latency_ms"][name]


def _in_mib(name: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda point: None if point[name] is None else point[name] / MIB


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _told(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
