"""Versions that replace one another under constant traffic: not one request may fail."""

from __future__ import annotations

import statistics
import time

from tests.endurance.figures import Finding
from tests.stack import Stack
from tests.traffic import Traffic, text_request

LINEAGE = "sentiment-sklearn"
VERSIONS = ("sentiment-sklearn-v1.0", "sentiment-sklearn-v2.0")


def switches(stack: Stack, count: int) -> list[Finding]:
    took: list[float] = []
    with stack.api() as api:
        first = api.post(f"/api/models/{VERSIONS[0]}/activate", json={"reason": "endurance"})
        assert first.status_code == 200, first.text
        traffic = Traffic(stack.inference, stack.headers, {LINEAGE: text_request()}, per_second=200, clients=4)
        with traffic:
            for number in range(count):
                began = time.monotonic()
                if number % 2:
                    answer = api.post(f"/api/lineages/{LINEAGE}/rollback", json={"to": VERSIONS[0]})
                else:
                    answer = api.post(f"/api/models/{VERSIONS[1]}/activate", json={"reason": "endurance"})
                assert answer.status_code == 200, answer.text
                took.append(time.monotonic() - began)
        answers = traffic.of(LINEAGE)
        bad = traffic.bad(LINEAGE)
        slowest = max(answer.seconds for answer in answers)
        history = api.get(f"/api/lineages/{LINEAGE}/history").json()
        api.post(f"/api/models/{VERSIONS[0]}/unload")
        api.post(f"/api/models/{VERSIONS[1]}/unload")
    return [
        Finding(
            f"{count} activations and rollbacks under {len(answers)} requests",
            f"{len(bad)} failed" + (f": {bad[0].status} {bad[0].text[:120]}" if bad else ""),
            "0 failed",
            not bad,
        ),
        Finding("a switch, request to answer, p50", f"{statistics.median(took) * 1e3:.0f} ms"),
        Finding("slowest request meanwhile", f"{slowest * 1e3:.0f} ms"),
        Finding("moves in the lineage's history", str(len(history["changes"])), f"≥ {count}",
                len(history["changes"]) >= count),
    ]  # fmt: skip
