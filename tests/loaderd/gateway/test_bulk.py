"""Bulk work is told how those are answered who go first, and its answers are otherwise like everybody's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.loaderd.gateway.conftest import Served, serving

PATH = "/v2/models/double-v1/infer"
INSIDE = "/internal/models/double-v1/predict"
BULK = {"X-Modelhub-Priority": "bulk"}
TOLD = "X-Modelhub-Others-Ms"


@pytest.fixture
def fresh_double(tmp_path: Path) -> Iterator[Served]:
    """double-v1, which nobody has asked yet."""
    with serving(tmp_path, "double") as served:
        yield served


def infer(**more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}], **more}


def test_bulk_work_is_told_how_others_are_answered_once_there_are_such(fresh_double: Served) -> None:
    fresh_double.door.route(fresh_double.table)
    private = fresh_double.door.private()
    ways = [(fresh_double.http, PATH, infer()), (private, INSIDE, {"inputs": [[1.0, 2.0]]})]
    for http, path, body in ways:
        assert TOLD not in http.post(path, json=body, headers=BULK).raise_for_status().headers
    plain = [http.post(path, json=body).raise_for_status() for http, path, body in ways]
    for (http, path, body), answer in zip(ways, plain, strict=True):
        assert TOLD not in answer.headers
        bulk = http.post(path, json=body, headers=BULK).raise_for_status()
        assert 0.0 < float(bulk.headers[TOLD]) < 10_000
        assert {**bulk.json(), "latency_ms": 0} == {**answer.json(), "latency_ms": 0}


@pytest.mark.parametrize("sampling_rate", [0.0, 1.0], ids=["plain", "traced"])
def test_binary_answers_keep_the_length_of_their_json_part(fresh_double: Served, sampling_rate: float) -> None:
    door = fresh_double.door
    door.route(fresh_double.table, sampling_rate=sampling_rate)
    body = infer(parameters={"binary_data_output": True})
    plain = fresh_double.http.post(PATH, json=body).raise_for_status()
    bulk = fresh_double.http.post(PATH, json=body, headers=BULK).raise_for_status()
    assert TOLD in bulk.headers
    assert bulk.headers["Inference-Header-Content-Length"] == plain.headers["Inference-Header-Content-Length"]
    assert bulk.content == plain.content
