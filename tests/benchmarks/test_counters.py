from __future__ import annotations

from benchmarks.counters import ModelCounts, counts_of

TEXT = """# TYPE modelhub_requests counter
modelhub_requests_total{model="text-v1.0"} 120.0
modelhub_requests_total{model="other-v1.0"} 7.0
modelhub_request_seconds_bucket{le="0.001",model="text-v1.0"} 100.0
modelhub_request_seconds_sum{model="text-v1.0"} 0.36
modelhub_compute_seconds_total{model="text-v1.0"} 1.2e-01
modelhub_cache_hits_total{model="text-v1.0"} 2.0
modelhub_cache_shared_total{model="text-v1.0"} 3.0
"""


def test_it_reads_what_one_model_counted() -> None:
    counts = counts_of(TEXT, "text-v1.0")
    assert (counts.requests, counts.request_seconds, counts.compute_seconds, counts.cached) == (120, 0.36, 0.12, 5)


def test_a_model_that_is_not_there_has_counted_nothing() -> None:
    assert counts_of(TEXT, "nobody") == ModelCounts()


def test_two_readings_give_what_happened_between_them() -> None:
    before = ModelCounts(requests=100, request_seconds=0.3)
    assert counts_of(TEXT, "text-v1.0").since(before).requests == 20
