"""The dashboard says what was observed, to whom it is permitted, in a fixed number of queries."""

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
from modelhub.console.dashboard.snapshot import MOST_MODELS, dashboard, make
from modelhub.lifecycle.models import LineageChange, LoaderStatus, Operation, OperationStatus, StateChange
from modelhub.registry.choices import HealthStatus, Status
from modelhub.registry.models import Alias
from modelhub.telemetry.models import Alert, Sample
from tests.console.conftest import MIB, MakeVersion, client_of

pytestmark = pytest.mark.django_db


def page(client: Client) -> str:
    dashboard.forget()
    response = client.get(reverse("admin:index"))
    assert response.status_code == 200
    return response.content.decode()


class TestWhatIsShown:
    def test_without_a_model_it_says_what_to_do(self, admin: Client, loaderd: LoaderStatus) -> None:
        shown = page(admin)
        assert "No model is registered yet" in shown
        assert "run discovery" in shown

    def test_a_loaded_model_with_its_memory_state_and_health(
        self, admin: Client, loaderd: LoaderStatus, make_loaded: MakeVersion
    ) -> None:
        make_loaded("mail-v1", private_bytes=120 * MIB, health_status=HealthStatus.DEGRADED, health_reason="slow")
        shown = page(admin)
        assert "mail-v1" in shown
        assert re.search(r'mh-state--good" title="[^"]*">loaded', shown)
        assert re.search(r'mh-state--warn" title="slow">degraded', shown)
        assert "120 MiB of 600 MiB" in shown

    def test_what_failed_stands_first_with_its_reason(
        self, admin: Client, loaderd: LoaderStatus, make_loaded: MakeVersion, make_version: MakeVersion
    ) -> None:
        good = make_loaded("a-good")
        broken = make_version("z-broken", status=Status.ERROR, status_reason="killed by SIGSEGV", version="z")
        shown = page(admin)
        assert shown.index(f'id="mh-model-{broken.pk}"') < shown.index(f'id="mh-model-{good.pk}"')
        assert "killed by SIGSEGV" in shown

    def test_rate_and_quantiles_are_those_of_the_samples(self, loaderd: LoaderStatus, make_loaded: MakeVersion) -> None:
        version = make_loaded()
        counts = histogram.empty()
        counts[histogram.bucket_of(0.010)] = 60
        Sample.objects.create(
            version=version, at=timezone.now() - timedelta(seconds=5), seconds=10, requests=60, errors=6,
            latency_seconds=0.6, histogram=counts,
        )  # fmt: skip
        row = make().rows[0]
        assert row.requests_per_second == 1.0
        assert row.p50_ms == pytest.approx(10.0, rel=0.2)
        assert row.error_rate == 0.1

    def test_keep_alive_tells_when_it_will_end(self, loaderd: LoaderStatus, make_loaded: MakeVersion) -> None:
        used_at = timezone.now() - timedelta(seconds=100)
        make_loaded("idle", keep_alive_seconds=300.0, last_used_at=used_at, status_changed_at=used_at)
        make_loaded("pinned", keep_alive_seconds=300.0, pinned=True, version="p")
        rows = {row.version.model_id: row for row in make().rows}
        assert rows["idle"].ends_at == used_at + timedelta(seconds=300)
        assert rows["pinned"].ends_at is None

    def test_running_operations_alerts_and_what_happened(
        self, admin: Client, loaderd: LoaderStatus, make_loaded: MakeVersion
    ) -> None:
        version = make_loaded()
        now = timezone.now()
        Operation.objects.create(
            kind="unload", version=version, status=OperationStatus.RUNNING, phase="draining", progress=0.5,
            requested_by_name="ada",
        )  # fmt: skip
        Operation.objects.create(kind="load", version=version, status=OperationStatus.SUCCEEDED)
        Alert.objects.create(key="k", kind="memory", message="Memory is at 95 %.", opened_at=now, last_seen_at=now)
        StateChange.objects.create(
            version=version, from_state="loading", to_state="loaded", reason="answers", actor="ada", at=now
        )
        LineageChange.objects.create(
            lineage=version.lineage, alias="live", kind="rollback", version=version, actor="ada", at=now,
            details={"version_id": "mail-v1"}, reason="worse",
        )  # fmt: skip
        shown = page(admin)
        assert "unload of mail-v1" in shown
        assert "load of mail-v1</a>" not in shown.replace("unload of mail-v1</a>", "")
        assert "draining" in shown
        assert "Memory is at 95 %." in shown
        assert "mail: live rolled back" in shown

    def test_the_live_version_is_marked(self, loaderd: LoaderStatus, make_loaded: MakeVersion) -> None:
        live, other = make_loaded("v1"), make_loaded("v2")
        Alias.objects.create(lineage=live.lineage, name="live", version=live, set_by="ada")
        assert {row.version.pk: row.is_live for row in make().rows} == {live.pk: True, other.pk: False}


class TestGauge:
    def test_its_parts_and_what_is_reserved_fill_it(self, loaderd: LoaderStatus, make_loaded: MakeVersion) -> None:
        for number in range(12):
            make_loaded(f"m{number:02}", private_bytes=(number + 1) * MIB)
        loaderd.facts["budget"]["reserved_bytes"] = 22 * MIB
        loaderd.save()
        gauge = make().memory
        assert gauge is not None
        assert gauge.used_bytes == 78 * MIB
        assert gauge.free_bytes == 500 * MIB
        assert [part.colour for part in gauge.parts] == [*"12345678", "rest", "reserved"]
        assert sum(part.bytes for part in gauge.parts) == 100 * MIB
        assert sum(part.percent for part in gauge.parts) == pytest.approx(100 / 6)

    def test_models_past_their_budget_still_fit_into_it(self, loaderd: LoaderStatus, make_loaded: MakeVersion) -> None:
        make_loaded(private_bytes=900 * MIB)
        gauge = make().memory
        assert gauge is not None
        assert gauge.free_bytes == -300 * MIB
        assert sum(part.percent for part in gauge.parts) == pytest.approx(100)

    def test_a_gpu_has_one_of_its_own(self, loaderd: LoaderStatus, make_loaded: MakeVersion) -> None:
        gpu = {"index": 0, "name": "H100", "memory_total_bytes": 1000 * MIB, "memory_free_bytes": 700 * MIB}
        loaderd.facts["gpus"] = [gpu]
        loaderd.facts["budget"] |= {"gpu_budget_bytes": 800 * MIB, "gpu_reserved_bytes": 0}
        loaderd.save()
        make_loaded(gpu_bytes=200 * MIB)
        (gauge,) = make().gpus
        assert (gauge.used_bytes, gauge.free_bytes, gauge.available_bytes) == (200 * MIB, 600 * MIB, 700 * MIB)


class TestLoaderdAway:
    def test_a_banner_says_since_when_and_nothing_claims_to_be_loaded(
        self, admin: Client, loaderd: LoaderStatus, make_loaded: MakeVersion
    ) -> None:
        make_loaded()
        loaderd.observed_at = timezone.now() - timedelta(minutes=3)
        loaderd.save()
        shown = page(admin)
        assert "loaderd is unreachable" in shown
        assert "It was last heard" in shown
        assert ">unreachable<" in shown
        assert ">loaded<" not in shown
        assert "Memory of models" not in shown
        assert "– of 1" in shown  # how many are loaded is not known

    def test_it_says_when_it_was_stopped_and_when_it_never_ran(self, admin: Client, db: None) -> None:
        assert "It has never run" in page(admin)
        LoaderStatus.objects.create(pk=1, observed_at=timezone.now(), stopped_at=timezone.now())
        assert "It was stopped" in page(admin)


class TestTheLiveFragment:
    def url(self, seen: str = "") -> str:
        return reverse("console:dashboard") + (f"?seen={seen}" if seen else "")

    def test_what_stands_still_is_not_sent_again(
        self, admin: Client, loaderd: LoaderStatus, make_loaded: MakeVersion
    ) -> None:
        version = make_loaded()
        first = admin.get(self.url(), headers={"HX-Request": "true"})
        digest = first.content.decode().split('data-mh-digest="')[1].split('"')[0]
        dashboard.forget()
        again = admin.get(self.url(digest), headers={"HX-Request": "true"})
        assert (again.status_code, again.content) == (204, b"")
        version.status = Status.UNLOADED
        version.save()
        dashboard.forget()
        changed = admin.get(self.url(digest), headers={"HX-Request": "true"})
        assert changed.status_code == 200
        assert "Nothing is in memory" in changed.content.decode()

    def test_a_page_whose_session_ended_is_told_to_load_itself(self, client: Client, db: None) -> None:
        response = client.get(self.url(), headers={"HX-Request": "true"})
        assert response.headers["HX-Refresh"] == "true"
        assert response.content == b""

    def test_nobody_is_let_in_without_a_login(self, client: Client, db: None) -> None:
        assert client.get(self.url()).status_code == 302
        user = User.objects.create_user("not-staff")
        assert client_of(user).get(self.url()).status_code == 302


class TestPermissions:
    def test_a_viewer_sees_all_and_no_action(
        self, viewer: Client, loaderd: LoaderStatus, make_loaded: MakeVersion
    ) -> None:
        make_loaded()
        shown = page(viewer)
        assert "mail-v1" in shown
        assert "Unload<" not in shown
        assert "data-mh-dialog" not in shown

    def test_an_operator_is_offered_what_is_possible(
        self, operator: Client, loaderd: LoaderStatus, make_loaded: MakeVersion, make_version: MakeVersion
    ) -> None:
        loaded = make_loaded()
        broken = make_version("broken", status=Status.ERROR)
        shown = page(operator)
        assert reverse("admin:registry_modelversion_unload", args=[loaded.pk]) in shown
        assert reverse("admin:registry_modelversion_load", args=[broken.pk]) in shown

    def test_who_may_see_nothing_sees_no_model(self, loaderd: LoaderStatus, make_loaded: MakeVersion) -> None:
        make_loaded()
        nobody = client_of(User.objects.create_user("nils", is_staff=True))
        assert "mail-v1" not in page(nobody)


class TestCost:
    def test_queries_do_not_grow_with_models(
        self, admin: Client, loaderd: LoaderStatus, make_loaded: MakeVersion
    ) -> None:
        def queries() -> int:
            dashboard.forget()
            with CaptureQueriesContext(connection) as captured:
                admin.get(reverse("console:dashboard"))
            return len(captured)

        make_loaded("first")
        few = queries()
        for number in range(40):
            make_loaded(f"m{number}")
        assert queries() == few

    def test_viewers_share_one_look(self, admin: Client, viewer: Client, loaderd: LoaderStatus) -> None:
        dashboard.forget()
        admin.get(reverse("console:dashboard"))
        with CaptureQueriesContext(connection) as captured:
            viewer.get(reverse("console:dashboard"))
        assert not [query for query in captured if "registry_modelversion" in query["sql"]]

    def test_more_than_the_most_are_counted_not_listed(self, loaderd: LoaderStatus, make_loaded: MakeVersion) -> None:
        for number in range(MOST_MODELS + 2):
            make_loaded(f"m{number:03}")
        seen = make()
        assert (len(seen.rows), seen.more_rows) == (MOST_MODELS, 2)
        assert seen.memory is not None
        assert seen.memory.used_bytes == (MOST_MODELS + 2) * 14 * MIB

    def test_many_that_failed_hide_neither_the_loaded_nor_their_count(
        self, loaderd: LoaderStatus, make_loaded: MakeVersion, make_version: MakeVersion
    ) -> None:
        for number in range(MOST_MODELS + 20):
            make_version(f"e{number:03}", status=Status.ERROR)
        for number in range(40):
            make_loaded(f"m{number:03}")
        seen = make()
        assert (seen.counts["loaded"], seen.counts["error"], seen.more_rows) == (40, MOST_MODELS + 20, 60)
        assert sum(row.status == "loaded" for row in seen.rows) == 40
        assert seen.rows[0].status == "error"
