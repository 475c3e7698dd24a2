"""What models did over time, with a clock that is moved and counters that are made up."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from loaderd import histogram
from loaderd.protocol import KeptAnswers, Lost
from loaderd.reporter import Report, Sample
from loaderd.supervisor.telemetry import MAX_SERIES, Telemetry


def counters(requests: int = 0, started_at: float = 1.0, **values: Any) -> dict[str, Any]:
    """Of a process that answered so many requests of one item in 10 ms each."""
    spread = histogram.empty()
    spread[histogram.bucket_of(0.01)] = requests
    return {
        "requests": requests,
        "items": requests,
        "errors": 0,
        "batches": requests,
        "latency_seconds": 0.01 * requests,
        "compute_seconds": 0.008 * requests,
        "queue_seconds": 0.001 * requests,
        "histogram": spread,
        "started_at": started_at,
        "queued": 0,
        "in_flight": 0,
        "max_queued": 0,
        "max_in_flight": 0,
        **values,
    }


class Watch:
    def __init__(self) -> None:
        self.now = 6000.0  # the beginning of a minute
        self.reports: list[Report] = []
        self.telemetry = Telemetry(self.reports.append, 10.0, clock=lambda: self.now, wall=lambda: self.now + 1e9)

    def samples(self, model_id: str | None = "m") -> list[Sample]:
        return [each for each in self.reports if isinstance(each, Sample) and each.model_id == model_id]

    def pass_interval(self) -> None:
        self.now += 10.0
        self.telemetry.tick()

    def series(self, models: dict[str, dict[str, Any]] | None = None) -> dict[tuple[str, str], float]:
        """The exposition: (name, the first label that says anything) -> value."""
        text = self.telemetry.exposition(models or {})
        return {
            (sample.name, ",".join(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


@pytest.fixture
def watch() -> Watch:
    return Watch()


class TestSamples:
    def test_an_interval_tells_what_was_added_in_it_and_the_highest_seen(self, watch: Watch) -> None:
        watch.telemetry.counted("m", counters(5), 100, None)
        watch.pass_interval()
        watch.now += 1
        watch.telemetry.counted("m", counters(8, max_queued=7, max_in_flight=9, errors=1), 300, 50)
        watch.telemetry.counted("m", counters(12, queued=2, errors=1), 200, 40)
        watch.now += 1
        watch.telemetry.tick()
        assert len(watch.samples()) == 1, "the interval is not over"
        watch.now += 8
        watch.telemetry.tick()
        first, second = watch.samples()
        assert (first.requests, first.seconds, first.private_bytes, first.gpu_bytes) == (5, 10.0, 100, None)
        assert (second.requests, second.items, second.errors) == (7, 7, 1)
        assert second.latency_seconds == pytest.approx(0.07)
        assert second.compute_seconds == pytest.approx(0.056)
        assert sum(second.histogram) == 7
        assert (second.queued, second.in_flight, second.private_bytes, second.gpu_bytes) == (7, 9, 300, 50)
        assert second.at == watch.now + 1e9

    def test_an_idle_loaded_model_has_samples_and_one_that_left_has_none(self, watch: Watch) -> None:
        watch.telemetry.counted("m", counters(), 100, None)
        watch.pass_interval()
        watch.telemetry.counted("m", counters(), 100, None)
        watch.pass_interval()
        watch.telemetry.left("m")
        watch.pass_interval()
        assert [(each.requests, each.private_bytes, each.histogram) for each in watch.samples()] == [(0, 100, ())] * 2

    def test_what_a_model_did_before_it_left_is_still_told(self, watch: Watch) -> None:
        watch.telemetry.counted("m", counters(3), 100, None)
        watch.telemetry.left("m")
        watch.pass_interval()
        assert [each.requests for each in watch.samples()] == [3]

    def test_its_last_counters_may_come_with_its_leave(self, watch: Watch) -> None:
        watch.telemetry.counted("m", counters(3), 100, None)
        watch.telemetry.left("m", counters(5))
        watch.telemetry.left("m", counters(5))
        watch.pass_interval()
        assert [each.requests for each in watch.samples()] == [5]

    def test_a_new_process_counts_anew(self, watch: Watch) -> None:
        watch.telemetry.counted("m", counters(100, started_at=1.0), None, None)
        watch.telemetry.left("m")
        watch.telemetry.counted("m", counters(150, started_at=2.0), None, None)
        watch.pass_interval()
        assert [each.requests for each in watch.samples()] == [250]

    @pytest.mark.parametrize("again", [40, 150], ids=["fewer", "more"])
    def test_a_new_process_is_recognised_without_being_told(self, watch: Watch, again: int) -> None:
        watch.telemetry.counted("m", counters(100, started_at=1.0), None, None)
        watch.telemetry.counted("m", counters(again, started_at=2.0), None, None)
        watch.pass_interval()
        assert [each.requests for each in watch.samples()] == [100 + again]

    def test_requests_that_no_process_could_count_are_errors_of_their_model(self, watch: Watch) -> None:
        watch.telemetry.counted("m", counters(3), 10, None)
        spread = histogram.empty()
        spread[histogram.bucket_of(1.0)] = 2
        watch.telemetry.lost(Lost("m", watch.now, 2, 2.0, spread, "the process ended"))
        watch.telemetry.counted("m", counters(4), 10, None)
        watch.pass_interval()
        (sample,) = watch.samples()
        assert (sample.requests, sample.errors, sum(sample.histogram)) == (6, 2, 6)
        assert watch.series()["modelhub_errors_total", "m"] == 2

    def test_lost_requests_of_a_model_that_is_not_loaded_are_told_once(self, watch: Watch) -> None:
        watch.telemetry.lost(Lost("m", watch.now, 1, 1.0, histogram.empty(), "the process ended"))
        watch.pass_interval()
        watch.pass_interval()
        assert [(sample.requests, sample.errors) for sample in watch.samples()] == [(1, 1)]

    def test_what_the_cache_answered_is_use_and_is_told_beside_the_requests(self, watch: Watch) -> None:
        watch.telemetry.counted("m", counters(), None, None)
        watch.now += 100.0
        watch.telemetry.kept(KeptAnswers("m", at=0.0, hits=3, shared=2, misses=1, entries=1, bytes=700))
        assert (watch.telemetry.idle_seconds("m"), watch.telemetry.usage_share("m")) == (0.0, 0.5)
        watch.telemetry.kept(KeptAnswers("m", at=0.0, hits=4, shared=0, misses=0, entries=0, bytes=0))
        watch.pass_interval()
        watch.pass_interval()
        told = [(sample.requests, sample.cache_hits, sample.cache_misses) for sample in watch.samples()]
        assert told == [(0, 9, 1), (0, 0, 0)]

    def test_what_was_only_missed_is_no_use_of_the_cache(self, watch: Watch) -> None:
        watch.telemetry.counted("m", counters(), None, None)
        watch.now += 100.0
        watch.telemetry.kept(KeptAnswers("m", at=0.0, hits=0, shared=0, misses=1, entries=1, bytes=700))
        assert watch.telemetry.idle_seconds("m") == 100.0

    def test_the_cache_answered_for_a_model_that_left(self, watch: Watch) -> None:
        watch.telemetry.kept(KeptAnswers("m", at=0.0, hits=1, shared=0, misses=0, entries=1, bytes=700))
        watch.pass_interval()
        watch.pass_interval()
        assert [sample.cache_hits for sample in watch.samples()] == [1]

    def test_the_host_has_a_sample_of_its_own(self, watch: Watch) -> None:
        watch.telemetry.host(100, 50, 1000, 4000, None)
        watch.telemetry.host(300, 0, 1000, 3000, 7)
        watch.telemetry.host(200, 0, 1000, 3500, None)
        watch.pass_interval()
        (host,) = watch.samples(None)
        assert (host.private_bytes, host.reserved_bytes, host.budget_bytes, host.available_bytes, host.gpu_bytes) == (
            300, 50, 1000, 3000, 7,
        )  # fmt: skip
        watch.pass_interval()
        assert len(watch.samples(None)) == 1, "nothing was seen in the second"


class TestUsage:
    def test_the_share_is_of_the_last_hours_minutes(self, watch: Watch) -> None:
        telemetry = watch.telemetry
        assert telemetry.usage_share("m") == 0.0
        telemetry.counted("m", counters(0), None, None)
        assert telemetry.usage_share("m") == 0.0
        for minute in range(120):
            telemetry.counted("m", counters(1 + minute // 4), None, None)  # asked in each fourth minute
            watch.now += 60
        assert telemetry.usage_share("m") == pytest.approx(0.25, abs=0.02)
        watch.now += 3600
        assert telemetry.usage_share("m") == 0.0

    def test_a_young_model_is_judged_by_the_minutes_since_it_was_seen(self, watch: Watch) -> None:
        watch.telemetry.counted("m", counters(1), None, None)
        assert watch.telemetry.usage_share("m") == 1.0
        watch.now += 60
        assert watch.telemetry.usage_share("m") == 0.5

    def test_idle_is_since_the_last_request_or_load(self, watch: Watch) -> None:
        telemetry = watch.telemetry
        assert telemetry.idle_seconds("m") == 0.0
        telemetry.counted("m", counters(), None, None)
        watch.now += 30
        telemetry.counted("m", counters(), None, None)
        assert telemetry.idle_seconds("m") == 30
        telemetry.counted("m", counters(1), None, None)
        assert telemetry.idle_seconds("m") == 0
        watch.now += 50
        telemetry.left("m")
        telemetry.counted("m", counters(started_at=2.0), None, None)
        assert telemetry.idle_seconds("m") == 0

    def test_a_request_that_is_not_answered_yet_is_use(self, watch: Watch) -> None:
        watch.telemetry.counted("m", counters(), None, None)
        watch.now += 30
        watch.telemetry.counted("m", counters(in_flight=1), None, None)
        assert watch.telemetry.idle_seconds("m") == 0
        assert watch.telemetry.usage_share("m") == 1.0


class TestExposition:
    def test_it_tells_state_counters_latencies_and_memory(self, watch: Watch) -> None:
        watch.telemetry.counted("m", counters(4, queued=1, in_flight=2), 100, None)
        watch.telemetry.host(100, 20, 1000, 4000, None)
        series = watch.series({"m": {"state": "loaded", "private_bytes": 100, "gpu_bytes": None}})
        assert series["modelhub_model_state", "m,loaded"] == 1
        assert series["modelhub_model_state", "m,unloaded"] == 0
        assert series["modelhub_requests_total", "m"] == 4
        assert series["modelhub_compute_seconds_total", "m"] == pytest.approx(0.032)
        assert series["modelhub_request_seconds_count", "m"] == 4
        assert series["modelhub_request_seconds_sum", "m"] == pytest.approx(0.04)
        assert (series["modelhub_queued", "m"], series["modelhub_in_flight", "m"]) == (1, 2)
        assert series["modelhub_model_private_bytes", "m"] == 100
        assert ("modelhub_model_gpu_bytes", "m") not in series
        assert series["modelhub_memory_budget_bytes", ""] == 1000

    def test_the_buckets_are_cumulative_and_at_most_16(self, watch: Watch) -> None:
        watch.telemetry.counted("m", counters(4), None, None)
        buckets = {
            labels.split(",")[0]: value
            for (name, labels), value in watch.series().items()
            if name == "modelhub_request_seconds_bucket"
        }
        assert 10 <= len(buckets) <= 16
        assert list(buckets.values()) == sorted(buckets.values())
        assert buckets["0.0064"] == 0
        assert buckets["0.0181019"] == buckets["+Inf"] == 4

    def test_sizes_of_calls_are_a_histogram_over_any_number_of_processes(self, watch: Watch) -> None:
        watch.telemetry.counted("m", counters(4, sizes=[[1, 3, 0.1], [3, 2, 0.1]]), None, None)
        watch.telemetry.counted("m", counters(5, sizes=[[1, 3, 0.1], [3, 3, 0.1], [4096, 1, 0.1]]), None, None)
        watch.telemetry.counted("m", counters(1, started_at=2.0, sizes=[[2, 1, 0.1]]), None, None)
        series = watch.series()
        buckets = {
            labels.split(",")[0]: value
            for (name, labels), value in series.items()
            if name == "modelhub_batch_items_bucket"
        }
        assert [buckets[bound] for bound in ("1", "2", "4", "1024", "+Inf")] == [3, 4, 7, 7, 8]
        assert series["modelhub_batch_items_count", "m"] == 8
        assert series["modelhub_batch_items_sum", "m"] == 3 * 1 + 3 * 3 + 4096 + 2

    def test_the_stages_of_requests_are_sums(self, watch: Watch) -> None:
        stages = {"queue_seconds": 1.0, "input_seconds": 2.0, "infer_seconds": 3.0, "output_seconds": 4.0}
        watch.telemetry.counted("m", counters(4, **stages), None, None)
        series = watch.series()
        assert [series[f"modelhub_{stage}_total", "m"] for stage in stages] == list(stages.values())

    def test_the_cache_has_series_for_models_that_use_it(self, watch: Watch) -> None:
        for model_id in ("m", "plain"):
            watch.telemetry.counted(model_id, counters(1), None, None)
        watch.telemetry.kept(KeptAnswers("m", at=0.0, hits=3, shared=2, misses=1, entries=4, bytes=700))
        watch.telemetry.kept(KeptAnswers("m", at=0.0, hits=1, shared=0, misses=1, entries=2, bytes=300))
        series = watch.series()
        names = ("hits_total", "shared_total", "misses_total", "entries", "bytes")
        assert [series[f"modelhub_cache_{name}", "m"] for name in names] == [4, 2, 2, 2, 300]
        assert not [name for name, label in series if "cache" in name and label == "plain"]

    def test_labels_are_escaped(self, watch: Watch) -> None:
        watch.telemetry.counted('a "quoted" \\ one', counters(1), None, None)
        assert watch.series()["modelhub_requests_total", 'a "quoted" \\ one'] == 1

    def test_counters_go_on_over_a_restart_and_after_the_unload(self, watch: Watch) -> None:
        watch.telemetry.counted("m", counters(4, started_at=1.0), None, None)
        watch.telemetry.left("m")
        assert watch.series()["modelhub_requests_total", "m"] == 4
        watch.telemetry.counted("m", counters(1, started_at=2.0), None, None)
        assert watch.series()["modelhub_requests_total", "m"] == 5

    def test_models_past_the_bound_are_summed_and_no_series_changes_its_meaning(self, watch: Watch) -> None:
        for number in range(MAX_SERIES + 2):
            watch.telemetry.counted(f"m{number}", counters(1), None, None)
        states = {f"m{number}": {"state": "loaded"} for number in range(MAX_SERIES + 2)}
        series = watch.series(states)
        assert series["modelhub_requests_total", "_other"] == 2
        assert series["modelhub_model_state", "_other,loaded"] == 2
        assert len([name for name in series if name[0] == "modelhub_requests_total"]) == MAX_SERIES + 1
        watch.telemetry.counted("a", counters(1), None, None)
        assert watch.series(states)["modelhub_requests_total", "m0"] == 1
        assert watch.series(states)["modelhub_requests_total", "_other"] == 3
