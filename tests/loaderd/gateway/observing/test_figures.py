from __future__ import annotations

from loaderd.gateway.observing.figures import COUNTS, exposition


def values(text: str) -> dict[str, str]:
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))


def test_what_all_gateways_counted_is_summed() -> None:
    own = {"slow_requests": 1, "spans_exported": 3, "spans_failed": 0, "spans_dropped": 0}
    other = {COUNTS: {"slow_requests": 2, "spans_exported": 6, "spans_failed": 1, "spans_dropped": 9}}
    assert values(exposition(own, [other, {}])) == {
        "modelhub_gateway_slow_requests_total": "3",
        'modelhub_gateway_spans_total{outcome="dropped"}': "9",
        'modelhub_gateway_spans_total{outcome="exported"}': "9",
        'modelhub_gateway_spans_total{outcome="failed"}': "1",
    }


def test_without_an_exporter_nothing_is_said_of_spans() -> None:
    assert values(exposition({"slow_requests": 0}, [])) == {"modelhub_gateway_slow_requests_total": "0"}
