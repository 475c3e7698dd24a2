"""What is counted of requests and calls, and how it is told."""

from __future__ import annotations

import json

import pytest

from loaderd.worker.counters import Counters, size_class


def test_requests_add_up_and_failed_ones_are_told_apart() -> None:
    counters = Counters()
    counters.answered(3, 0.5, 0.1, "", 0.01, 0.3, 0.02)
    counters.answered(2, 0.25, 0.05, "the model is broken", 0.01, 0.1)
    told = counters.to_message(0, 0, 0.0)
    assert (told["requests"], told["items"], told["errors"], told["failed_items"]) == (2, 5, 1, 2)
    assert told["latency_seconds"] == 0.75
    assert told["failed_seconds"] == 0.25
    assert told["input_seconds"] == 0.02
    assert told["infer_seconds"] == pytest.approx(0.4)
    assert told["output_seconds"] == 0.02
    assert told["last_error"] == "the model is broken"


def test_calls_are_counted_by_their_size() -> None:
    counters = Counters()
    for items, seconds in ((1, 0.25), (8, 0.5), (1, 0.25), (100, 1.0), (128, 2.0)):
        counters.computed(1, seconds, items)
    counters.computed(3, 0.5, 4)  # of several calls nobody knows which took how long
    counters.computed(1, 0.5)
    told = json.loads(json.dumps(counters.to_message(0, 0, 0.0)))
    assert told["sizes"] == [[1, 2, 0.5], [8, 1, 0.5], [128, 2, 3.0]]
    assert (told["batches"], told["compute_seconds"]) == (9, 5.0)


def test_sizes_stay_few() -> None:
    assert len({size_class(items) for items in range(1, 100_001)}) == 64 + 11
    assert [size_class(items) for items in (1, 64, 65, 128, 129)] == [1, 64, 128, 128, 256]
