"""Alerts and measurements in the admin: a constant number of queries, and nothing changed but by acknowledging."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_q.models import Schedule

from modelhub.registry.models import ModelVersion
from modelhub.telemetry.models import Alert, Comparison, Sample, Trace
from tests.telemetry.conftest import MakeVersion, latencies

pytestmark = pytest.mark.django_db
ALERTS = "/admin/telemetry/alert/"


def open_alert(key: str, version: ModelVersion | None = None, **fields: Any) -> Alert:
    now = timezone.now()
    values = {"kind": "memory", "message": f"about {key}", "opened_at": now, "last_seen_at": now, **fields}
    return Alert.objects.create(key=key, version=version, **values)


@pytest.fixture
def fill(make_version: MakeVersion) -> Callable[[int], None]:
    def fill(count: int) -> None:
        now = timezone.now()
        for number in range(count):
            live = make_version(f"m{count}-{number}-v1", lineage=f"m{count}-{number}", manifest=[{"path": "x"}])
            candidate = make_version(f"m{count}-{number}-v2", lineage=live.lineage.name)
            open_alert(f"{count}-{number}", live)
            Trace.objects.create(version=live, at=now, status=200, route="live", total_seconds=0.25)
            Sample.objects.create(version=live, at=now, seconds=10, histogram=latencies(0.1), private_bytes=3 << 20)
            Comparison.objects.create(
                lineage=live.lineage, live=live, candidate=candidate, since=now, last_at=now, compared=4, disagreed=1
            )

    return fill


@pytest.mark.parametrize(
    "page",
    ["telemetry/trace", "telemetry/alert", "lifecycle/operation", "lifecycle/lineagechange", "policy/policychange"],
)
def test_no_filter_reads_the_table_for_its_choices(admin_client: Client, page: str) -> None:
    with CaptureQueriesContext(connection) as queries:
        assert admin_client.get(f"/admin/{page}/").status_code == 200
    assert not [query["sql"] for query in queries if "DISTINCT" in query["sql"]]


@pytest.mark.parametrize(
    ("query", "wanted"),
    [("status=2", [200]), ("status=5", [504]), ("route=candidate", [504]), ("status=x", [200, 504])],
)
def test_traces_are_filtered(admin_client: Client, version: ModelVersion, query: str, wanted: list[int]) -> None:
    for status, route in ((200, "live"), (504, "candidate")):
        Trace.objects.create(version=version, at=timezone.now(), status=status, route=route, total_seconds=0.1)
    found = admin_client.get(f"/admin/telemetry/trace/?{query}").context["cl"].result_list
    assert sorted(trace.status for trace in found) == wanted


@pytest.mark.parametrize("page", ["alert", "trace", "sample", "comparison"])
def test_a_list_costs_the_same_for_any_number_of_rows(
    admin_client: Client, fill: Callable[[int], None], page: str
) -> None:
    counts = []
    for count in (2, 20):
        fill(count)
        admin_client.get(f"/admin/telemetry/{page}/")
        with CaptureQueriesContext(connection) as queries:
            assert admin_client.get(f"/admin/telemetry/{page}/").status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1] < 10
    assert not any("manifest" in query["sql"] for query in queries)


def test_rows_can_be_read_and_not_written(admin_client: Client, fill: Callable[[int], None]) -> None:
    fill(1)
    for model in (Alert, Trace, Sample, Comparison):
        name, row = model._meta.model_name, model.objects.get()
        page = f"/admin/telemetry/{name}/{row.pk}/change/"
        assert admin_client.get(page).status_code == 200
        assert admin_client.post(page, {}).status_code == 403
        assert admin_client.post(f"/admin/telemetry/{name}/{row.pk}/delete/", {"post": "yes"}).status_code == 403
        assert admin_client.get(f"/admin/telemetry/{name}/add/").status_code == 403


def test_figures_are_told_in_words(admin_client: Client, fill: Callable[[int], None]) -> None:
    fill(1)
    assert "250.0 ms" in admin_client.get("/admin/telemetry/trace/").content.decode()
    assert "3.0\xa0MB" in admin_client.get("/admin/telemetry/sample/?seconds=10").content.decode()
    assert "25.00% of 4" in admin_client.get("/admin/telemetry/comparison/").content.decode()


def test_alerts_are_found_by_state_and_kind(admin_client: Client) -> None:
    now = timezone.now()
    open_alert("a")
    open_alert("b", acknowledged_at=now)
    open_alert("c", resolved_at=now + timedelta(seconds=1), kind="gave_up")
    found = {
        query: [alert.key for alert in admin_client.get(ALERTS + query).context["cl"].result_list]
        for query in ("?state=open", "?state=acknowledged", "?state=resolved", "?kind=gave_up")
    }
    assert list(found.values()) == [["a"], ["b"], ["c"], ["c"]]


class TestAcknowledging:
    def acknowledge(self, client: Client, *alerts: Alert) -> Any:
        chosen = [alert.pk for alert in alerts]
        return client.post(ALERTS, {"action": "acknowledge_selected", "_selected_action": chosen}, follow=True)

    def test_it_keeps_who_and_when(self, admin_client: Client, admin_user: Any) -> None:
        alert = open_alert("a")
        response = self.acknowledge(admin_client, alert)
        assert [str(message) for message in response.context["messages"]] == ["Acknowledged: about a"]
        alert.refresh_from_db()
        assert (alert.state, alert.acknowledged_by, alert.acknowledged_by_name) == ("acknowledged", admin_user, "admin")

    def test_what_is_over_is_told_so(self, admin_client: Client) -> None:
        response = self.acknowledge(admin_client, open_alert("a", resolved_at=timezone.now() + timedelta(seconds=1)))
        assert "resolved" in str(next(iter(response.context["messages"])))

    def test_viewers_may_not(self, client: Client, django_user_model: Any) -> None:
        user = django_user_model.objects.create_user("staff", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename="view_alert"))
        client.force_login(user)
        alert = open_alert("a")
        assert "acknowledge_selected" not in client.get(ALERTS).content.decode()
        self.acknowledge(client, alert)
        alert.refresh_from_db()
        assert alert.state == "open"


def test_when_the_maintenance_runs_can_be_changed_and_what_it_runs_cannot(admin_client: Client) -> None:
    schedule = Schedule.objects.get()
    page = f"/admin/django_q/schedule/{schedule.pk}/change/"
    assert "Roll up and purge" in admin_client.get("/admin/django_q/schedule/").content.decode()
    form = {
        "schedule_type": "I",
        "minutes": "5",
        "repeats": "-1",
        "next_run_0": "2030-01-01",
        "next_run_1": "00:00:00",
        "func": "os.system",
    }
    assert admin_client.post(page, form).status_code == 302
    schedule.refresh_from_db()
    assert (schedule.minutes, schedule.func) == (5, "modelhub.telemetry.maintenance.maintain")
    assert admin_client.get("/admin/django_q/schedule/add/").status_code == 403
