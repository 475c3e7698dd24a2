"""What was told of single predictions, as Prometheus text: summed over all gateways behind the port."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

COUNTS = "observed"  # where they stand in what a gateway tells the others of its counts


def exposition(own: Mapping[str, int], others: Iterable[Mapping[str, Any]]) -> str:
    """own: `Observer.counts()`. others: what other gateways counted. Spans are told of where they are exported."""
    sums = Counter(own)
    for told in others:
        sums.update(told.get(COUNTS, {}))
    lines = [
        "# HELP modelhub_gateway_slow_requests_total Predictions that took SLOW_REQUEST_SECONDS or longer.",
        "# TYPE modelhub_gateway_slow_requests_total counter",
        f"modelhub_gateway_slow_requests_total {sums['slow_requests']}",
    ]
    outcomes = [name for name in sums if name.startswith("spans_")]
    if outcomes:
        lines += [
            "# HELP modelhub_gateway_spans_total Spans: taken by the collector, not taken by it, or never sent.",
            "# TYPE modelhub_gateway_spans_total counter",
        ]
        lines += [
            f'modelhub_gateway_spans_total{{outcome="{name.removeprefix("spans_")}"}} {sums[name]}'
            for name in sorted(outcomes)
        ]
    return "\n".join(lines) + "\n"
