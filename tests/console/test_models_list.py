"""The list of models: its rows say what is true now, change in place, count for its filters, at a constant cost."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from loaderd import histogram
from modelhub.console.model_page.rows import FORGET_SECONDS, Watched, watched
from modelhub.console.site import counts
from modelhub.lifecycle.models import LoaderStatus
from modelhub.registry.choices import HealthStatus, Status
from modelhub.registry.models import Alias, Model, ModelVersion
from modelhub.telemetry.models import Sample
from tests.console.conftest import MIB, MakeVersion, client_of

pytestmark = pytest.mark.django_db
LIST = "admin:registry_modelversion_changelist"
HTMX = {"HX-Request": "true"}


@pytest.fixture(autouse=True)
def _nobody_looked_before() -> None:
    watched.forget()


def page(client: Client, **asked: str) -> str:
    response = client.get(reverse(LIST), asked)
    assert response.status_code == 200
    return response.content.decode()


def cell(shown: str, version: ModelVersion, name: str) -> str:
    """What stands in a cell; its own elements are spans within spans."""
    found = re.search(rf'id="mh-cell-{version.pk}-{name}"[^>]*>(.*?)</span>\s*(?:</td>|</span>|$)', shown, re.S)
    assert found, f"{name} of {version}"
    return found.group(1)


def shown_rows(shown: str) -> str:
    """What the page's script sends: which rows it shows, and how."""
    return ",".join(re.findall(r'data-mh-row="([^"]+)"', shown))


def dialog(command: str, version: ModelVersion) -> str:
    return f'data-mh-dialog="{reverse(f"admin:registry_modelversion_{command}", args=[version.pk])}"'


class TestWhatIsShown:
    def test_a_loaded_model_with_colour_and_word(
        self, admin: Client, loaderd: LoaderStatus, make_loaded: MakeVersion
    ) -> None:
        version = make_loaded(health_status=HealthStatus.DEGRADED, health_reason="slow", gpu_bytes=7 * MIB, pinned=True)
        Alias.objects.create(lineage=version.lineage, name="stable", version=version, set_by="ada")
        Alias.objects.create(lineage=version.lineage, name="live", version=version, set_by="ada")
        shown = page(admin)
        assert re.search(r'mh-state--good" title="[^"]*">loaded', cell(shown, version, "state"))
        assert 'mh-state--warn" title="slow">degraded' in cell(shown, version, "health")
        assert "14 MiB" in cell(shown, version, "memory")
        assert "7 MiB GPU" in cell(shown, version, "memory")
        assert shown.index(">live</span>") < shown.index(">stable</span>")
        assert ">pinned</span>" in shown

    def test_the_latency_is_that_of_the_last_five_minutes(
        self, admin: Client, loaderd: LoaderStatus, make_loaded: MakeVersion
    ) -> None:
        version = make_loaded(last_used_at=timezone.now() - timedelta(minutes=3))
        buckets = histogram.empty()
        buckets[histogram.bucket_of(0.040)] = 20
        for age, requests in ((30, 20), (3000, 20)):
            Sample.objects.create(
                version=version, at=timezone.now() - timedelta(seconds=age), seconds=10, requests=requests,
                histogram=buckets if age == 30 else [0] * (len(buckets) - 1) + [20],
            )  # fmt: skip
        shown = page(admin)
        told = re.search(r"([\d.]+) ms", cell(shown, version, "p95"))
        assert told is not None
        assert float(told.group(1)) == pytest.approx(40, rel=0.1)
        assert 'data-mh-age="ago"' in cell(shown, version, "used")

    def test_a_silent_loaderd_makes_unreachable_and_offers_nothing(
        self, admin: Client, make_loaded: MakeVersion
    ) -> None:
        version = make_loaded()
        shown = page(admin)
        assert ">unreachable" in cell(shown, version, "state")
        assert "MiB" not in cell(shown, version, "memory")
        assert dialog("unload", version) not in shown

    @pytest.mark.parametrize(
        ("fields", "word"),
        [
            ({"missing_since": timezone.now()}, "gone"),
            ({"refusal": "bad metadata"}, "refused"),
            ({"artifact_format": "joblib"}, "needs approval"),
        ],
        ids=["gone", "refused", "unapproved"],
    )
    def test_what_keeps_a_model_from_being_loaded_is_told(
        self, admin: Client, loaderd: LoaderStatus, make_version: MakeVersion, fields: dict[str, object], word: str
    ) -> None:
        make_version(**fields)
        assert f">{word}</span>" in page(admin)


class TestActionsOfARow:
    def test_they_are_buttons_by_state(
        self, operator: Client, loaderd: LoaderStatus, make_loaded: MakeVersion, make_version: MakeVersion
    ) -> None:
        loaded, other = make_loaded("loaded"), make_loaded("beside")
        Alias.objects.create(lineage=loaded.lineage, name="live", version=loaded, set_by="ada")
        unloaded, broken = make_version("unloaded"), make_version("broken", status=Status.ERROR)
        busy, gone = make_version("busy", status=Status.LOADING), make_version("gone", missing_since=timezone.now())
        shown = page(operator)
        offered = {
            version.model_id: [name for name in ("load", "unload", "activate") if dialog(name, version) in shown]
            for version in (loaded, other, unloaded, broken, busy, gone)
        }
        assert offered == {
            "loaded": ["unload"],
            "beside": ["unload", "activate"],
            "unloaded": ["load", "activate"],
            "broken": ["load", "activate"],
            "busy": [],
            "gone": [],
        }
        assert re.search(r'<button type="button"[^>]*aria-disabled="true">Loading…', shown)

    def test_a_viewer_has_none(self, viewer: Client, loaderd: LoaderStatus, make_loaded: MakeVersion) -> None:
        make_loaded()
        shown = page(viewer)
        assert "mail-v1" in shown
        assert "data-mh-dialog" not in shown.split('id="result_list"')[1].split("</table>")[0]


class TestLiveRows:
    def url(self) -> str:
        return reverse("console:model-rows")

    def test_only_rows_that_changed_are_sent(
        self, operator: Client, loaderd: LoaderStatus, make_loaded: MakeVersion, make_version: MakeVersion
    ) -> None:
        still, moved = make_loaded("still"), make_version("moved")
        rows = shown_rows(page(operator))
        assert operator.get(self.url(), {"rows": rows}, headers=HTMX).status_code == 204
        ModelVersion.objects.filter(pk=moved.pk).update(status=Status.LOADED, private_bytes=9 * MIB)
        watched.forget()
        response = operator.get(self.url(), {"rows": rows}, headers=HTMX)
        sent = response.content.decode()
        assert response.status_code == 200
        assert f'<span hx-swap-oob="morph" id="mh-cell-{moved.pk}-state"' in sent
        assert "9 MiB" in sent
        assert dialog("unload", moved) in sent
        assert f"mh-cell-{still.pk}-" not in sent
        assert operator.get(self.url(), {"rows": shown_rows(sent)}, headers=HTMX).status_code == 204

    def test_a_row_that_was_not_watched_is_read_at_once(
        self, operator: Client, loaderd: LoaderStatus, make_version: MakeVersion
    ) -> None:
        first, second = make_version("first"), make_version("second")
        assert operator.get(self.url(), {"rows": f"{first.pk}:x"}, headers=HTMX).status_code == 200
        sent = operator.get(self.url(), {"rows": f"{second.pk}:x"}, headers=HTMX).content.decode()
        assert f"mh-cell-{second.pk}-state" in sent

    def test_all_pages_share_one_look(
        self, operator: Client, viewer: Client, loaderd: LoaderStatus, make_loaded: MakeVersion
    ) -> None:
        rows = f"{make_loaded().pk}:x"
        operator.get(self.url(), {"rows": rows}, headers=HTMX)
        with CaptureQueriesContext(connection) as captured:
            assert viewer.get(self.url(), {"rows": rows}, headers=HTMX).status_code == 200
        assert not [query for query in captured if "registry_modelversion" in query["sql"]]

    def test_what_nobody_asks_for_any_more_is_not_read(self, loaderd: LoaderStatus, make_version: MakeVersion) -> None:
        now = [1000.0]
        watching = Watched(clock=lambda: now[0])
        old, new, newest = (make_version(name) for name in ("old", "new", "newest"))
        assert list(watching.get([old.pk])) == [old.pk]
        assert set(watching.get([new.pk])) == {old.pk, new.pk}, "somebody else still shows it"
        now[0] += FORGET_SECONDS + 1
        assert list(watching.get([newest.pk])) == [newest.pk]

    @pytest.mark.parametrize("rows", ["", "x", "1:", "99999999999999999999:x", "1:2,,:,٣:x"])
    def test_what_is_no_row_is_passed_over(self, admin: Client, rows: str) -> None:
        assert admin.get(self.url(), {"rows": rows}, headers=HTMX).status_code == 204

    def test_it_is_for_who_may_see_models(self, db: None) -> None:
        nobody = client_of(User.objects.create_user("nils", is_staff=True))
        assert nobody.get(self.url(), headers=HTMX).status_code == 403


class TestFilters:
    def counted(self, shown: str, name: str) -> dict[str, str]:
        """Title of a filter's choice -> its count."""
        choices = shown.split(f'id="filter-{name}"')[1].split("</ul>")[0]
        return dict(re.findall(r">([^<>]+) \((\d+)\)</a>", choices))

    def test_each_choice_tells_how_many_it_would_show(
        self, admin: Client, loaderd: LoaderStatus, make_loaded: MakeVersion, make_version: MakeVersion
    ) -> None:
        make_loaded("a", framework="sklearn", pinned=True)
        make_version("b", framework="tensorflow", artifact_format="keras")
        make_version("c", framework="sklearn", artifact_format="joblib", refusal="bad")
        shown = page(admin)
        assert self.counted(shown, "state") == {"All": "3", "Loaded": "1", "Unloaded": "2"}, "others would show nothing"
        assert self.counted(shown, "needs-attention") == {
            "All": "3",
            "Refused by discovery": "1",
            "Not approved, can run code": "1",
        }
        assert self.counted(shown, "pinned") == {"All": "3", "Yes": "1", "No": "2"}

    def test_counts_keep_to_the_other_filters_and_to_the_search(
        self, admin: Client, loaderd: LoaderStatus, make_loaded: MakeVersion, make_version: MakeVersion
    ) -> None:
        make_loaded("mail-a", framework="sklearn")
        make_version("mail-b", framework="sklearn")
        make_version("mail-c", framework="tensorflow", artifact_format="keras")
        make_version("other", framework="sklearn", lineage="other")
        shown = page(admin, q="mail", framework="sklearn")
        assert self.counted(shown, "state") == {"All": "2", "Loaded": "1", "Unloaded": "1"}
        assert list(self.counted(shown, "framework").values()) == ["3", "1", "2"], "its own filter is left aside"
        assert "mail-c" not in shown.split('id="result_list"')[1]

    @pytest.mark.parametrize(
        "asked", ["status__exact=nonsense", "status__exact=%01", "framework=%01", "pinned__exact=x"]
    )
    def test_a_choice_that_there_is_none_of_breaks_nothing(
        self, admin: Client, make_version: MakeVersion, asked: str
    ) -> None:
        make_version()
        assert admin.get(f"{reverse(LIST)}?{asked}").status_code == 200

    def test_models_without_a_figure_are_sorted_below_those_with_one(
        self, admin: Client, loaderd: LoaderStatus, make_loaded: MakeVersion, make_version: MakeVersion
    ) -> None:
        now = timezone.now()
        make_version("none")
        make_loaded("small", private_bytes=MIB, last_used_at=now)
        make_loaded("large", private_bytes=9 * MIB, last_used_at=now - timedelta(days=1))
        for column, first in ((6, "large"), (8, "small")):
            rows = admin.get(reverse(LIST), {"o": f"-{column}"}).context["cl"].result_list
            assert [rows[0].model_id, rows[-1].model_id] == [first, "none"]


class TestCost:
    def test_forty_rows_cost_as_many_queries_as_one(
        self, admin: Client, loaderd: LoaderStatus, make_loaded: MakeVersion
    ) -> None:
        def queries(url: str, **asked: str) -> int:
            admin.get(url, asked)
            counts.forget()
            watched.forget()
            with CaptureQueriesContext(connection) as captured:
                assert admin.get(url, asked, headers=HTMX).status_code == 200
            return len(captured)

        def cost() -> list[int]:
            rows = ",".join(f"{pk}:x" for pk in ModelVersion.objects.values_list("pk", flat=True))
            return [queries(reverse(LIST)), queries(reverse("console:model-rows"), rows=rows)]

        version = make_loaded("first")
        Alias.objects.create(lineage=version.lineage, name="live", version=version, set_by="ada")
        few = cost()
        for number in range(40):
            version = make_loaded(f"m{number}", lineage=f"lineage-{number}")
            Alias.objects.create(lineage=version.lineage, name="live", version=version, set_by="ada")
        assert cost() == few
        assert max(few) < 14

    def test_filters_count_in_one_query(self, admin: Client, make_version: MakeVersion) -> None:
        make_version()
        with CaptureQueriesContext(connection) as captured:
            admin.get(reverse(LIST))
        assert len([query for query in captured if "GROUP BY" in query["sql"]]) == 1

    def test_a_row_is_light(self, admin: Client, loaderd: LoaderStatus, make_loaded: MakeVersion) -> None:
        lineage = Model.objects.create(name="many")
        make_loaded("first")
        one = len(page(admin))
        ModelVersion.objects.bulk_create(
            ModelVersion(
                lineage=lineage, model_id=f"many-{number}", name="many", version=str(number), path=f"topic/m{number}",
                framework="sklearn", artifact_format="skops", digest="b" * 64,
            )
            for number in range(40)
        )  # fmt: skip
        assert (len(page(admin)) - one) / 40 < 3000
