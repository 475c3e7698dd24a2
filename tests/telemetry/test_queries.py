"""Summaries, series and comparisons say what was measured, whatever resolution it lies in."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from modelhub.registry.models import Model, ModelVersion
from modelhub.telemetry.models import Alert, Comparison, Sample
from modelhub.telemetry.queries import comparison_of, open_alerts, series, summaries, summary
from tests.telemetry.conftest import MakeVersion, latencies

pytestmark = pytest.mark.django_db


def add(version: ModelVersion | None, ago_seconds: float, seconds: int = 10, **fields: object) -> Sample:
    return Sample.objects.create(
        version=version, at=timezone.now() - timedelta(seconds=ago_seconds), seconds=seconds, **fields
    )


class TestSummary:
    def test_it_adds_up_all_resolutions_of_the_window(self, version: ModelVersion) -> None:
        fast = latencies(*[0.004] * 98, 0.2, 0.2)
        add(version, 5, requests=100, items=200, errors=4, latency_seconds=0.792, compute_seconds=0.5, histogram=fast)
        add(version, 9000, 60, requests=100, items=100, queued=7, histogram=latencies(*[0.004] * 100))
        add(version, 90_000, 600, requests=1)
        found = summary(version, 4 * 3600)
        assert (found["requests"], found["items"], found["errors"]) == (200, 300, 4)
        assert found["error_rate"] == 0.02
        assert found["requests_per_second"] == pytest.approx(200 / 14_400)
        assert found["throughput"] == 600
        assert found["max_queued"] == 7
        assert found["latency_ms"]["p50"] == pytest.approx(4.0, rel=0.19)
        assert found["latency_ms"]["mean"] == 3.96
        assert found["loaded_seconds"] == 70

    def test_quantiles_are_those_of_all_rows_together(self, version: ModelVersion) -> None:
        for second in range(1, 10):
            add(version, second, requests=10, histogram=latencies(*[0.001] * 9, 1.0))
        found = summary(version, 60)["latency_ms"]
        assert found["p50"] == pytest.approx(1.0, rel=0.19)
        assert found["p95"] == pytest.approx(1000.0, rel=0.19)

    def test_a_model_that_was_not_seen_has_zeros_and_no_latency(self, version: ModelVersion) -> None:
        found = summary(version, 60)
        assert (found["requests"], found["error_rate"], found["throughput"], found["private_bytes_max"]) == (
            0,
            0.0,
            None,
            None,
        )
        assert found["latency_ms"] == {"mean": None, "p50": None, "p95": None, "p99": None}
        assert found["last_at"] is None

    def test_the_highest_memory_of_the_window_is_told(self, version: ModelVersion) -> None:
        add(version, 5, private_bytes=100)
        add(version, 15, private_bytes=300)
        add(version, 100, private_bytes=900)
        assert summary(version, 60)["private_bytes_max"] == 300

    def test_one_query_for_any_number_of_models(self, make_version: MakeVersion) -> None:
        made = [make_version(f"m{number}", lineage=f"l{number}") for number in range(20)]
        for model in made:
            add(model, 5, requests=1, histogram=latencies(0.001))
        with CaptureQueriesContext(connection) as captured:
            found = summaries([model.pk for model in made], 60)
        assert len(captured) == 1
        assert [found[model.pk]["requests"] for model in made] == [1] * 20
        assert summaries([], 60) == {}


class TestSeries:
    def test_each_step_holds_its_own_rows_and_gaps_show(self, version: ModelVersion) -> None:
        now = datetime.now(tz=timezone.get_current_timezone())
        aligned = datetime.fromtimestamp(now.timestamp() // 10 * 10, tz=now.tzinfo)
        for ago, requests in ((10, 3), (40, 5)):
            Sample.objects.create(
                version=version,
                at=aligned - timedelta(seconds=ago),
                seconds=10,
                requests=requests,
                private_bytes=ago,
                histogram=latencies(0.01),
            )
        points = series(version, 60, points=6)
        assert len(points) == 6
        assert {point["seconds"] for point in points} == {10}
        asked = {point["at"]: point for point in points if point["requests"]}
        assert [asked[at]["requests"] for at in sorted(asked)] == [5, 3]
        assert asked[aligned - timedelta(seconds=10)]["requests_per_second"] == pytest.approx(0.3)
        assert asked[aligned - timedelta(seconds=10)]["latency_ms"]["p50"] == pytest.approx(10, rel=0.19)
        assert [point["private_bytes"] for point in points].count(None) == 4

    @pytest.mark.parametrize(("hours", "step"), [(1, 30), (24, 720), (7 * 24, 5400)])
    def test_a_step_is_a_whole_number_of_the_coarsest_rows(self, version: ModelVersion, hours: int, step: int) -> None:
        points = series(version, hours * 3600)
        assert {point["seconds"] for point in points} == {step}
        assert len(points) <= 120
        assert all(later["at"] - earlier["at"] == timedelta(seconds=step) for earlier, later in pairwise(points))

    def test_the_hosts_requests_are_those_of_all_models_and_its_bytes_its_own(self, make_version: MakeVersion) -> None:
        one, other = make_version("a"), make_version("b")
        now = timezone.now()
        for which, requests, private in ((one, 2, 10), (other, 3, 20), (None, 0, 30)):
            Sample.objects.create(
                version=which, at=now, seconds=10, requests=requests, private_bytes=private, available_bytes=7
            )
        (point,) = [point for point in series(None, 600) if point["requests"]]
        assert (point["requests"], point["private_bytes"], point["available_bytes"]) == (5, 30, 7)

    def test_beyond_an_hour_the_host_has_sums_and_a_mean_but_no_quantiles(self, make_version: MakeVersion) -> None:
        for name in ("a", "b"):
            Sample.objects.create(
                version=make_version(name),
                at=timezone.now(),
                seconds=10,
                requests=2,
                latency_seconds=0.2,
                histogram=latencies(0.1, 0.1),
            )
        with CaptureQueriesContext(connection) as captured:
            (day,) = [point for point in series(None, 24 * 3600) if point["requests"]]
        assert not [query["sql"] for query in captured if "histogram" in query["sql"]]
        assert (day["requests"], day["latency_ms"]) == (4, {"mean": 100.0, "p50": None, "p95": None, "p99": None})
        (hour,) = [point for point in series(None, 3600) if point["requests"]]
        assert hour["latency_ms"]["p50"] == pytest.approx(100, rel=0.19)

    def test_it_is_one_query(self, version: ModelVersion) -> None:
        with CaptureQueriesContext(connection) as captured:
            series(version, 3600)
            series(None, 3600)
        assert len(captured) == 2


class TestComparison:
    def test_both_versions_stand_side_by_side(self, make_version: MakeVersion) -> None:
        live, candidate = make_version("mail-v1"), make_version("mail-v2")
        since = timezone.now() - timedelta(hours=1)
        Model.objects.update(traffic_changed_at=since)
        Comparison.objects.create(
            lineage=live.lineage,
            live=live,
            candidate=candidate,
            since=since,
            last_at=timezone.now(),
            compared=200,
            disagreed=5,
            dropped=1,
            live_requests=100,
            live_latency_seconds=1.0,
            live_histogram=latencies(*[0.01] * 100),
            candidate_requests=10,
            candidate_errors=1,
            candidate_histogram=latencies(*[0.1] * 10),
        )
        with CaptureQueriesContext(connection) as captured:
            found = comparison_of(Model.objects.get())
        assert len(captured) == 2  # the lineage is one of them
        assert (found["disagreement_rate"], found["dropped"], found["is_current"]) == (0.025, 1, True)
        assert found["live"]["model_id"] == "mail-v1"
        assert found["live"]["latency_ms"]["mean"] == 10.0
        assert found["live"]["latency_ms"]["p95"] == pytest.approx(10.0, rel=0.19)
        assert found["candidate"]["error_rate"] == 0.1
        assert found["candidate"]["latency_ms"]["p50"] == pytest.approx(100.0, rel=0.19)
        Model.objects.update(traffic_changed_at=timezone.now())
        assert not comparison_of(Model.objects.get())["is_current"]

    def test_without_one_there_is_none(self, version: ModelVersion) -> None:
        assert comparison_of(version.lineage) is None


def test_open_alerts_name_their_model_without_more_queries(version: ModelVersion) -> None:
    now = timezone.now()
    for key, resolved_at in (("memory", None), ("restarts:mail-v1", None), ("old", now)):
        model = version if ":" in key else None
        Alert.objects.create(key=key, kind="x", version=model, opened_at=now, last_seen_at=now, resolved_at=resolved_at)
    with CaptureQueriesContext(connection) as captured:
        assert {alert.version and alert.version.model_id for alert in open_alerts()} == {None, "mail-v1"}
    assert len(captured) == 1
