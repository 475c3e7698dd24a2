"""Alerts and measurements in the admin: a constant number of queries, and nothing changed but by acknowledging."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_q.models import OrmQ, Schedule, Task
from django_q.tasks import async_task

from modelhub.lifecycle.models import Operation
from modelhub.policy.models import PolicyChange
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
    assert "250 ms" in admin_client.get("/admin/telemetry/trace/").content.decode()
    assert "3 MiB" in admin_client.get("/admin/telemetry/sample/?seconds=10").content.decode()
    assert "25.0% of 4" in admin_client.get("/admin/telemetry/comparison/").content.decode()


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


@pytest.mark.parametrize("value", ["nonsense", "\x01", "9" * 5000], ids=["word", "control", "long"])
@pytest.mark.parametrize(
    ("page", "parameter"),
    [
        ("telemetry/alert", "kind"),
        ("telemetry/sample", "seconds"),
        ("telemetry/trace", "route"),
        ("lifecycle/operation", "source"),
        ("policy/policychange", "setting"),
    ],
)
def test_a_choice_that_is_not_offered_shows_no_row(
    admin_client: Client, fill: Callable[[int], None], page: str, parameter: str, value: str
) -> None:
    fill(1)
    Operation.objects.create(kind="load", version=ModelVersion.objects.first(), source="api")
    PolicyChange.objects.create(setting="MAX_MEMORY_USAGE_MB", after="1", actor="ada")
    assert len(admin_client.get(f"/admin/{page}/").context["cl"].result_list) == 1
    response = admin_client.get(f"/admin/{page}/", {parameter: value})
    assert response.status_code == 200
    assert list(response.context["cl"].result_list) == []


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


class TestAlertPage:
    """Its advice, its course, the same before, and the button for those who may."""

    def page(self, client: Client, alert: Alert) -> str:
        return client.get(f"{ALERTS}{alert.pk}/change/").content.decode()

    def test_it_tells_what_was_measured_and_what_to_do(self, admin_client: Client, version: ModelVersion) -> None:
        alert = open_alert("error_rate:x", version, kind="error_rate", value=12.0, threshold=5.0)
        page = self.page(admin_client, alert)
        assert f"Failing predictions: {version.model_id}" in page
        assert re.search(r"<dt>Measured</dt><dd>12 %</dd><dt>Alert from</dt><dd>5 %</dd>", page)
        assert "roll back if a new version brought it" in page
        assert f"/admin/alerts/{alert.pk}/acknowledge/" in page

    @pytest.mark.parametrize(
        ("kind", "value", "told"),
        [
            ("load_seconds", 12.0, "12.00 s"),
            ("over_budget", 3 << 20, "3 MiB"),
            ("thrashing", 4, "4 times"),
            ("new", 1.5, "1.5"),
        ],
    )
    def test_figures_have_their_unit(self, admin_client: Client, kind: str, value: float, told: str) -> None:
        assert f"<dd>{told}</dd>" in self.page(admin_client, open_alert("a", kind=kind, value=value))

    def test_its_course_and_the_same_before(self, admin_client: Client) -> None:
        now = timezone.now()
        before = open_alert("a", resolved_at=now - timedelta(hours=1), opened_at=now - timedelta(hours=2))
        open_alert("b")
        alert = open_alert("a", acknowledged_at=now, acknowledged_by_name="ada")
        page = self.page(admin_client, alert)
        assert "acknowledged by ada" in page
        assert re.findall(r"/admin/telemetry/alert/(\d+)/change/\">opened", page) == [str(before.pk)]
        assert "/acknowledge/" not in page
        assert "resolved by loaderd" in self.page(admin_client, before)

    def test_who_may_not_acknowledge_sees_no_button(self, client: Client, django_user_model: Any) -> None:
        user = django_user_model.objects.create_user("staff", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename="view_alert"))
        client.force_login(user)
        alert = open_alert("a")
        assert "/acknowledge/" not in self.page(client, alert)
        assert client.post(f"/admin/alerts/{alert.pk}/acknowledge/").status_code == 403
        alert.refresh_from_db()
        assert alert.state == "open"


class TestHeadings:
    """Pages are called by what they are about, not by keys of rows; times have seconds."""

    def test_of_measurements(self, admin_client: Client, fill: Callable[[int], None]) -> None:
        fill(1)
        for model, heading in (
            (Trace, "A prediction of m1-0-v1"),
            (Sample, "10 seconds of m1-0-v1"),
            (Comparison, "m1-0: m1-0-v1 beside m1-0-v2"),
        ):
            name, row = model._meta.model_name, model.objects.get()
            page = admin_client.get(f"/admin/telemetry/{name}/{row.pk}/change/").content.decode()
            assert re.search(rf"<h1[^>]*>{heading}</h1>", page)
        at = timezone.localtime(Trace.objects.get().at)
        assert f'title="{at:%Y-%m-%d %H:%M:%S %Z}"' in admin_client.get("/admin/telemetry/trace/").content.decode()


class TestSchedules:
    LIST = "/admin/django_q/schedule/"

    @pytest.fixture
    def schedule(self, db: None) -> Schedule:
        return Schedule.objects.get()

    def test_when_it_runs_next_and_ran_last(self, admin_client: Client, schedule: Schedule) -> None:
        page = admin_client.get(self.LIST).content.decode()
        assert "every 10 minutes" in page
        assert 'data-mh-age="until"' in page
        assert "not yet" in page
        now = timezone.now()
        task = Task.objects.create(id="a" * 32, name="x", func=schedule.func, started=now, stopped=now, success=False)
        Schedule.objects.update(task=task.pk)
        page = admin_client.get(self.LIST).content.decode()
        assert f"/admin/django_q/failure/{task.pk}/change/" in page
        assert ">failed<" in page

    def test_it_is_run_now(self, admin_client: Client, admin_user: Any, schedule: Schedule) -> None:
        answer = admin_client.post(f"{self.LIST}{schedule.pk}/run/", follow=True)
        assert "is in the queue" in str(next(iter(answer.context["messages"])))
        queued = OrmQ.objects.get()
        assert (queued.func(), queued.task_id()) == (schedule.func, Schedule.objects.get().task)
        assert LogEntry.objects.get().get_change_message() == "Run now."
        assert Schedule.objects.get().next_run == schedule.next_run

    def test_only_by_those_who_may_and_by_a_post(
        self, client: Client, django_user_model: Any, schedule: Schedule
    ) -> None:
        user = django_user_model.objects.create_user("staff", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename="view_schedule"))
        client.force_login(user)
        assert "Run now" not in client.get(self.LIST).content.decode()
        assert client.post(f"{self.LIST}{schedule.pk}/run/").status_code == 403
        assert not OrmQ.objects.exists()

    def test_looking_at_its_address_runs_nothing(self, admin_client: Client, schedule: Schedule) -> None:
        assert admin_client.get(f"{self.LIST}{schedule.pk}/run/").status_code == 405
        assert not OrmQ.objects.exists()


class TestTasks:
    def task(self, **fields: Any) -> Task:
        now = timezone.now()
        values = {"id": "b" * 32, "name": "x", "func": "modelhub.lifecycle.tasks.dispatch", "started": now}
        return Task.objects.create(**{**values, "stopped": now + timedelta(seconds=2), **fields})

    def test_a_failed_one_tells_why_and_for_what(self, admin_client: Client, version: ModelVersion) -> None:
        operation = Operation.objects.create(kind="load", version=version)
        reason = "Traceback (most recent call last):\n  File x\nOperationalError: it is <closed>"
        task = self.task(success=False, result=reason, args=(str(operation.pk),))
        listed = admin_client.get("/admin/django_q/failure/").content.decode()
        assert "Hand a command to loaderd" in listed
        assert "OperationalError: it is &lt;closed&gt;" in listed
        page = admin_client.get(f"/admin/django_q/failure/{task.pk}/change/").content.decode()
        assert f"/admin/lifecycle/operation/{operation.pk}/change/" in page
        assert f"load of {version.model_id}" in page
        assert "Traceback" in page

    def test_one_without_a_reason_says_so(self, admin_client: Client) -> None:
        self.task(success=False, result=None)
        assert "its worker was killed" in admin_client.get("/admin/django_q/failure/").content.decode()

    def test_a_finished_one_tells_its_sentence(self, admin_client: Client) -> None:
        task = self.task(func="modelhub.telemetry.maintenance.maintain", result={"sentence": "3 rows rolled up."})
        page = admin_client.get(f"/admin/django_q/success/{task.pk}/change/").content.decode()
        assert "3 rows rolled up." in page
        assert "2.00 s" in page

    def test_a_queued_one(self, admin_client: Client) -> None:
        async_task("modelhub.telemetry.maintenance.maintain")
        page = admin_client.get("/admin/django_q/ormq/").content.decode()
        assert "Roll up and purge measurements" in page
        queued = OrmQ.objects.get()
        assert admin_client.get(f"/admin/django_q/ormq/{queued.pk}/change/").status_code == 200

    @pytest.mark.parametrize("page", ["success", "failure", "ormq", "schedule"])
    def test_lists_cost_the_same_for_any_number_of_rows(
        self, admin_client: Client, django_assert_max_num_queries: Any, page: str
    ) -> None:
        for number in range(12):
            self.task(id=f"{number:032}", success=number % 2 == 0)
            async_task("modelhub.telemetry.maintenance.maintain")
        admin_client.get(f"/admin/django_q/{page}/")
        with django_assert_max_num_queries(10):
            assert admin_client.get(f"/admin/django_q/{page}/").status_code == 200


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
