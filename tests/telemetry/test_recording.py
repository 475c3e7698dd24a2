"""What loaderd measured reaches the tables once, in few queries."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from loaderd import histogram
from loaderd.reporter import AlertReport, Comparison, Sample, Trace
from modelhub.registry.models import Model, ModelVersion
from modelhub.telemetry import models
from modelhub.telemetry.recording import (
    record_alerts,
    record_comparisons,
    record_samples,
    record_traces,
    resolve_open_alerts,
)
from tests.telemetry.conftest import MakeVersion, at, latencies

pytestmark = pytest.mark.django_db
NOW = 1_700_000_000.0


class TestSamples:
    def test_a_sample_of_a_model_and_one_of_the_host_are_kept_as_measured(self, version: ModelVersion) -> None:
        counts = latencies(0.004, 0.004, 0.020)
        record_samples(
            [
                Sample("mail-v1", NOW, 10.0, 3, 6, 1, 0.028, 0.02, counts, 4, 2, 200 << 20, 1 << 20, cache_hits=8),
                Sample(None, NOW, 10.0, private_bytes=300 << 20, budget_bytes=4 << 30, available_bytes=8 << 30),
            ]
        )
        sample = models.Sample.objects.get(version=version)
        assert (sample.requests, sample.items, sample.errors, sample.queued, sample.in_flight) == (3, 6, 1, 4, 2)
        assert (sample.cache_hits, sample.cache_misses) == (8, 0)
        assert (sample.at, sample.seconds, sample.private_bytes) == (at(NOW), 10, 200 << 20)
        assert histogram.merged([sample.histogram]) == counts
        host = models.Sample.objects.get(version=None)
        assert (host.private_bytes, host.budget_bytes, host.available_bytes) == (300 << 20, 4 << 30, 8 << 30)
        assert host.histogram == []

    def test_a_redelivered_report_is_harmless(self, version: ModelVersion) -> None:
        reports = [Sample("mail-v1", NOW, 10.0, 3), Sample(None, NOW, 10.0)]
        record_samples(reports)
        record_samples(reports)
        assert models.Sample.objects.count() == 2

    def test_a_model_that_is_gone_does_not_keep_the_others(
        self, version: ModelVersion, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING):
            record_samples([Sample("gone-v1", NOW, 10.0), Sample("mail-v1", NOW, 10.0)])
        assert [sample.version for sample in models.Sample.objects.all()] == [version]
        assert "gone-v1" in caplog.text

    def test_more_errors_than_requests_do_not_stop_the_writer(self, version: ModelVersion) -> None:
        record_samples([Sample("mail-v1", NOW, 10.0, 1, 1, 2)])
        assert models.Sample.objects.get().errors == 1


class TestAlerts:
    def report(self, is_open: bool = True, seconds: float = 0.0, key: str = "error_rate:mail-v1", **fields: object):
        values = {"message": "12 % fail", "value": 12.0, "threshold": 5.0, **fields}
        return AlertReport(key, key.partition(":")[0], "mail-v1", at=NOW + seconds, is_open=is_open, **values)

    def test_an_alert_opens_goes_on_and_is_resolved(self, version: ModelVersion) -> None:
        record_alerts([self.report()])
        record_alerts([self.report(seconds=5, message="20 % fail", value=20.0)])
        alert = models.Alert.objects.get()
        assert (alert.opened_at, alert.last_seen_at, alert.message) == (at(NOW), at(NOW + 5), "20 % fail")
        assert (alert.version, alert.kind, alert.state) == (version, "error_rate", "open")
        record_alerts([self.report(is_open=False, seconds=9)])
        alert.refresh_from_db()
        assert (alert.state, alert.resolved_at) == ("resolved", at(NOW + 9))

    def test_who_acknowledged_it_stays_while_it_goes_on(self, version: ModelVersion) -> None:
        record_alerts([self.report()])
        models.Alert.objects.update(acknowledged_at=at(NOW + 1), acknowledged_by_name="ada")
        record_alerts([self.report(seconds=5)])
        alert = models.Alert.objects.get()
        assert (alert.state, alert.acknowledged_by_name) == ("acknowledged", "ada")

    def test_what_comes_back_in_one_batch_is_a_new_alert(self, version: ModelVersion) -> None:
        record_alerts([self.report(), self.report(is_open=False, seconds=1), self.report(seconds=2)])
        assert sorted(alert.state for alert in models.Alert.objects.all()) == ["open", "resolved"]

    def test_the_end_of_what_never_began_leaves_nothing(self, version: ModelVersion) -> None:
        record_alerts([self.report(is_open=False)])
        assert not models.Alert.objects.exists()

    def test_many_cost_as_much_as_one(self, version: ModelVersion) -> None:
        def queries(count: int) -> int:
            with CaptureQueriesContext(connection) as captured:
                record_alerts([self.report(key=f"error_rate:{number}") for number in range(count)])
            return len(captured)

        assert queries(1) == queries(50)

    def test_a_message_with_a_nul_is_kept_without_it(self, version: ModelVersion) -> None:
        record_alerts([self.report(message="log: \0\ud800")])
        assert models.Alert.objects.get().message.startswith("log: ")

    def test_a_daemon_that_starts_resolves_what_the_killed_one_had_opened(self, version: ModelVersion) -> None:
        record_alerts([self.report(), self.report(key="memory")])
        assert resolve_open_alerts(NOW + 60) == 2
        record_alerts([self.report(seconds=70)])
        assert models.Alert.objects.get(resolved_at=None).opened_at == at(NOW + 70)


def test_traces_are_kept_and_those_of_gone_models_left_out(version: ModelVersion) -> None:
    record_traces(
        [
            Trace("mail-v1", NOW, 200, 0.012, 0.002, 0.009, 2, 8, "ada", "live"),
            Trace("mail-v1", NOW, 503, 0.5, None, None, 1, None, "", "direct"),
            Trace("gone-v1", NOW, 200, 0.012, 0.002, 0.009, 2, 8, "ada", "live"),
        ]
    )
    answered, refused = models.Trace.objects.order_by("status")
    assert (answered.user, answered.route, answered.batch_items, answered.queue_seconds) == ("ada", "live", 8, 0.002)
    assert (refused.status, refused.compute_seconds, refused.batch_items) == (503, None, None)


class TestComparisons:
    @pytest.fixture
    def lineage(self, make_version: MakeVersion) -> Model:
        return make_version("mail-v2", lineage=make_version("mail-v1").lineage.name).lineage

    def report(self, seconds: float = 0.0, **fields: object) -> Comparison:
        return Comparison("mail", "mail-v1", "mail-v2", NOW + seconds, **fields)

    def test_increments_and_histograms_are_added(self, lineage: Model) -> None:
        first, second = latencies(0.001, 0.001), latencies(0.001, 4.0)
        record_comparisons([self.report(compared=4, disagreed=1, live_requests=2, live_histogram=first)])
        record_comparisons(
            [
                self.report(5, compared=6, disagreed=2, dropped=3, live_requests=2, live_histogram=second),
                self.report(6, candidate_requests=1, candidate_errors=1, candidate_histogram=latencies(1.0)),
            ]
        )
        row = models.Comparison.objects.get()
        assert (row.compared, row.disagreed, row.dropped, row.live_requests) == (10, 3, 3, 4)
        assert (row.candidate_requests, row.candidate_errors) == (1, 1)
        assert histogram.merged([row.live_histogram]) == histogram.merged([first, second])
        assert histogram.merged([row.candidate_histogram]) == latencies(1.0)
        assert (row.since, row.last_at) == (at(NOW), at(NOW + 6))

    def test_each_split_has_its_own_comparison(self, lineage: Model) -> None:
        for changed in (100, 200):
            Model.objects.update(traffic_changed_at=at(NOW + changed))
            record_comparisons([self.report(changed + 5, compared=1)])
        assert [row.since for row in models.Comparison.objects.order_by("since")] == [at(NOW + 100), at(NOW + 200)]

    def test_what_was_seen_before_the_split_changed_counts_for_the_old_one(self, lineage: Model) -> None:
        Model.objects.update(traffic_changed_at=at(NOW))
        record_comparisons([self.report(5, compared=1)])
        Model.objects.update(traffic_changed_at=at(NOW + 100))
        record_comparisons([self.report(99, compared=1)])
        assert models.Comparison.objects.get().compared == 2

    def test_what_is_not_registered_is_left_out(self, lineage: Model, caplog: pytest.LogCaptureFixture) -> None:
        record_comparisons([Comparison("gone", "a", "b", NOW), Comparison("mail", "mail-v1", "b", NOW)])
        assert not models.Comparison.objects.exists()
        assert "not registered" in caplog.text

    def test_many_lineages_cost_as_much_as_one(self, make_version: MakeVersion) -> None:
        for number in range(20):
            make_version(f"m{number}-v1", lineage=f"m{number}")
            make_version(f"m{number}-v2", lineage=f"m{number}")

        def queries(count: int) -> int:
            with CaptureQueriesContext(connection) as captured:
                record_comparisons([Comparison(f"m{n}", f"m{n}-v1", f"m{n}-v2", NOW) for n in range(count)])
            return len(captured)

        assert queries(1) == queries(20)
        assert models.Comparison.objects.filter(last_at__lt=at(NOW) + timedelta(seconds=1)).count() == 20
