"""The admin shows operations and state changes with a constant number of queries, and changes nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from loaderd.errors import LoaderdError
from loaderd.resources import Gpus
from modelhub.lifecycle.models import LineageChange, LoaderStatus, Operation, StateChange
from modelhub.registry.models import Alias, Model, ModelVersion
from tests.lifecycle.conftest import MakeVersion
from tests.lifecycle.fake_loaderd import FakeLoaderd

pytestmark = pytest.mark.django_db(transaction=True)


class FakeNvml:
    """A machine with one GPU, as NVML tells of it."""

    NVMLError = RuntimeError

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:
        return SimpleNamespace(total=80 << 30, free=79 << 30)

    def nvmlDeviceGetUUID(self, handle: str) -> str:
        return "GPU-1"

    def nvmlDeviceGetName(self, handle: str) -> str:
        return "NVIDIA H100"


@pytest.fixture
def fill(make_version: MakeVersion) -> Callable[[int], None]:
    def fill(count: int) -> None:
        for number in range(count):
            version = make_version(f"m{number}-{count}")
            operation = Operation.objects.create(kind="load", version=version, requested_by_name="ada")
            StateChange.objects.create(
                version=version,
                from_state="unloaded",
                to_state="loading",
                actor="ada",
                operation=operation,
                at=timezone.now(),
            )
            LineageChange.objects.create(
                lineage=version.lineage,
                alias="live",
                kind="activate",
                version=version,
                previous=version,
                operation=operation,
                actor="ada",
                at=timezone.now(),
            )

    return fill


@pytest.mark.parametrize("page", ["operation", "statechange", "lineagechange", "loaderstatus"])
def test_a_list_costs_the_same_for_any_number_of_rows(
    client: Client, admin: User, fill: Callable[[int], None], page: str
) -> None:
    LoaderStatus.objects.create(pk=1, pid=7, observed_at=timezone.now())
    client.force_login(admin)
    counts = []
    for count in (2, 20):
        fill(count)
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert client.get(f"/admin/lifecycle/{page}/").status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1]
    assert not any("manifest" in query["sql"] for query in queries)


def test_rows_can_be_read_and_not_written(client: Client, admin: User, fill: Callable[[int], None]) -> None:
    fill(1)
    client.force_login(admin)
    for model in (Operation, StateChange, LineageChange):
        name, row = model._meta.model_name, model.objects.get()
        page = f"/admin/lifecycle/{name}/{row.pk}/change/"
        assert client.get(page).status_code == 200
        assert client.post(page, {"status": "succeeded"}).status_code == 403
        assert client.post(f"/admin/lifecycle/{name}/{row.pk}/delete/", {"post": "yes"}).status_code == 403
        assert client.get(f"/admin/lifecycle/{name}/add/").status_code == 403
    assert client.get("/admin/lifecycle/operation/?q=m0&status__exact=queued").status_code == 200


def test_an_operation_of_no_model_is_shown(client: Client, admin: User) -> None:
    client.force_login(admin)
    operation = Operation.objects.create(kind="optimize", requested_by_name="ada")
    assert "Memory optimisation" in client.get("/admin/lifecycle/operation/").content.decode()
    assert "all models" in client.get(f"/admin/lifecycle/operation/{operation.pk}/change/").content.decode()
    assert client.get("/admin/lifecycle/operation/?q=ada").status_code == 200


class TestPages:
    """A record's page: its heading in words, what it links to, the same number of queries for any history."""

    def page(self, client: Client, record: Model) -> str:
        return client.get(f"/admin/lifecycle/{record._meta.model_name}/{record.pk}/change/").content.decode()

    def heading(self, page: str) -> str:
        found = re.search(r"<h1[^>]*>([^<]*)</h1>", page)
        assert found
        return found[1]

    def test_headings_are_words(self, client: Client, admin: User, version: ModelVersion) -> None:
        client.force_login(admin)
        operation = Operation.objects.create(kind="rollback", version=version)
        change = StateChange.objects.create(
            version=version, from_state="loading", to_state="loaded", operation=operation, at=timezone.now()
        )
        moved, split = (
            LineageChange.objects.create(lineage=version.lineage, at=timezone.now(), operation=operation, **fields)
            for fields in (
                {"alias": "live", "kind": "rollback", "version": version},
                {"kind": "traffic", "details": {"candidate_percent": 12.5, "shadow": True}},
            )
        )
        lineage = version.lineage.name
        assert self.heading(self.page(client, operation)) == f"Rollback to {version}"
        assert self.heading(self.page(client, change)) == f"{version}: loading to loaded"
        assert self.heading(self.page(client, moved)) == f"{lineage}/live: rolled back, {version}"
        assert self.heading(self.page(client, split)) == f"{lineage}: traffic changed, 12.5 % to candidate, copies too"
        assert f"/admin/lifecycle/operation/{operation.pk}/change/" in self.page(client, change)

    def test_an_operation_under_way_is_followed(self, client: Client, admin: User, version: ModelVersion) -> None:
        client.force_login(admin)
        operation = Operation.objects.create(kind="load", version=version, status="running", phase="loading")
        page = self.page(client, operation)
        assert f'hx-get="/admin/live/operation/{operation.pk}/" hx-trigger=' in page
        assert "reads the model" in page
        assert "Cancel the load" in page

    def test_a_failed_operation_tells_why_and_what_next(
        self, client: Client, admin: User, version: ModelVersion
    ) -> None:
        client.force_login(admin)
        error = {"code": "insufficient_memory", "message": "It needs <9 GiB>.", "facts": {}}
        now = timezone.now()
        operation = Operation.objects.create(
            kind="load", version=version, status="failed", error=error, finished_at=now, reason="a new release"
        )
        page = self.page(client, operation)
        assert "It needs &lt;9 GiB&gt;." in page
        assert "Next:" in page
        assert "a new release" in page
        assert 'hx-trigger="load' not in page
        assert "insufficient_memory" in page

    def test_what_it_changed_costs_the_same_however_much(
        self, client: Client, admin: User, make_version: MakeVersion
    ) -> None:
        client.force_login(admin)
        operation = Operation.objects.create(kind="optimize")
        counts = []
        for count in (2, 20):
            for number in range(count):
                version = make_version(f"m{count}-{number}")
                values = {"operation": operation, "at": timezone.now()}
                StateChange.objects.create(version=version, from_state="loaded", to_state="unloading", **values)
                LineageChange.objects.create(lineage=version.lineage, alias="x", kind="set", version=version, **values)
            self.page(client, operation)
            with CaptureQueriesContext(connection) as queries:
                assert "m2-1" in self.page(client, operation)
            counts.append(len(queries))
        assert counts[0] == counts[1]
        assert not any("manifest" in query["sql"] for query in queries)

    def test_viewers_see_no_way_to_act(self, client: Client, version: ModelVersion) -> None:
        viewer = User.objects.create_user("viewer", is_staff=True)
        viewer.user_permissions.set(Permission.objects.filter(codename="view_operation"))
        client.force_login(viewer)
        operation = Operation.objects.create(kind="load", version=version)
        assert "Cancel the load" not in self.page(client, operation)
        assert client.post(f"/admin/live/operation/{operation.pk}/cancel/").status_code in (302, 403)
        operation.refresh_from_db()
        assert operation.status == "queued"

    def test_loaderd_says_how_it_is(self, client: Client, admin: User) -> None:
        client.force_login(admin)
        facts = {"budget": {"used_bytes": 1 << 20, "reserved_bytes": 0, "budget_bytes": 4 << 20}, "gpus": []}
        status = LoaderStatus.objects.create(pk=1, pid=7, observed_at=timezone.now(), facts=facts)
        page = self.page(client, status)
        assert "1 MiB held, 0 B reserved, of 4 MiB" in page
        assert ">running<" in page
        LoaderStatus.objects.update(observed_at=timezone.now() - timedelta(hours=1))
        assert ">unreachable<" in self.page(client, status)

    def test_loaderds_gpus_are_told_with_their_memory(self, client: Client, admin: User) -> None:
        client.force_login(admin)
        gpus = Gpus()
        gpus._nvml, gpus._handles = FakeNvml(), ["first"]
        status = LoaderStatus.objects.create(pk=1, pid=7, observed_at=timezone.now(), facts={"gpus": gpus.facts()})
        assert "NVIDIA H100 (80.0 GiB)" in self.page(client, status)


class TestAudit:
    def test_a_long_entry_is_listed_by_its_beginning_and_kept_whole(self, client: Client, admin: User) -> None:
        client.force_login(admin)
        text = "Edited metadata.json.\nmetadata.json before:\n" + '{"a": 1}\n' * 5000
        entry = LogEntry.objects.create(
            user=admin, object_repr="mail-v1", action_flag=2, change_message=text, object_id="1"
        )
        with CaptureQueriesContext(connection) as queries:
            listed = client.get("/admin/admin/logentry/").content.decode()
        assert "Edited metadata.json." in listed
        assert "json before:" not in listed
        assert len(queries) < 10
        page = client.get(f"/admin/admin/logentry/{entry.pk}/change/").content.decode()
        assert page.count("{&quot;a&quot;: 1}") == 5000
        assert "mail-v1: changed by ada" in page

    def test_djangos_own_words_are_told_too(self, client: Client, admin: User) -> None:
        client.force_login(admin)
        message = '[{"changed": {"fields": ["Email"]}}]'
        LogEntry.objects.create(user=admin, object_repr="x", action_flag=2, change_message=message)
        assert "Changed Email." in client.get("/admin/admin/logentry/").content.decode()

    def test_it_cannot_be_touched(self, client: Client, admin: User) -> None:
        client.force_login(admin)
        entry = LogEntry.objects.create(user=admin, object_repr="x", action_flag=3)
        page = f"/admin/admin/logentry/{entry.pk}"
        assert client.post(f"{page}/change/", {}).status_code == 403
        assert client.post(f"{page}/delete/", {"post": "yes"}).status_code == 403


class TestConfirmation:
    """A button leads to a page with the plan's sentence; its form acts."""

    @pytest.fixture
    def console(self, client: Client, admin: User, silent_loaderd: FakeLoaderd) -> Client:
        client.force_login(admin)
        return client

    def url(self, name: str, *arguments: object) -> str:
        return reverse(f"admin:registry_modelversion_{name}", args=arguments)

    @pytest.mark.parametrize(("command", "action"), [("load", "load"), ("unload", "unload"), ("activate", "activate")])
    def test_it_states_the_effect_and_then_acts_with_the_reason(
        self, console: Client, silent_loaderd: FakeLoaderd, version: ModelVersion, command: str, action: str
    ) -> None:
        ModelVersion.objects.update(status="loaded" if command == "unload" else "unloaded")
        silent_loaderd.plan = {
            "decision": "evicts",
            "sentence": "It needs 210 MiB; evicts old-v1.",
            "evict": [{"model_id": "old-v1", "bytes": 1, "gpu_bytes": 0, "reason": "idle 3 h"}],
        }
        page = console.get(self.url(command, version.pk)).content.decode()
        assert "It needs 210 MiB; evicts old-v1." in page
        assert ("will evict old-v1 (idle 3 h)" in page) is (command != "unload")
        assert "allow_gap" not in page
        assert re.search(rf">\s*{command.capitalize()}\s*</button>", page)
        assert 'name="reason"' in page
        assert silent_loaderd.received[-1]["action"] == action
        assert not Operation.objects.exists()
        console.post(self.url(command, version.pk), {"confirmed": "yes", "reason": "a new release"})
        operation = Operation.objects.get()
        assert (operation.kind, operation.reason, operation.source) == (command, "a new release", "admin")

    def test_a_refused_load_can_be_read_and_not_confirmed(
        self, console: Client, silent_loaderd: FakeLoaderd, version: ModelVersion
    ) -> None:
        silent_loaderd.plan = {"decision": "refused", "sentence": "It needs 9 GiB and 4 GiB are free."}
        page = console.get(self.url("load", version.pk)).content.decode()
        assert "It needs 9 GiB and 4 GiB are free." in page
        assert 'name="reason"' not in page

    def test_a_gap_is_offered_and_has_to_be_allowed(
        self, console: Client, silent_loaderd: FakeLoaderd, version: ModelVersion
    ) -> None:
        silent_loaderd.plan = {
            "decision": "evicts",
            "sentence": "It fits once old-v1 is unloaded.",
            "needs_gap": True,
            "replaces": "old-v1",
        }
        page = console.get(self.url("activate", version.pk)).content.decode()
        assert 'name="allow_gap"' in page
        console.post(self.url("activate", version.pk), {"confirmed": "yes", "allow_gap": "yes"})
        assert Operation.objects.get().parameters["allow_gap"] is True

    def test_what_loaderd_refuses_to_plan_is_told(
        self, console: Client, silent_loaderd: FakeLoaderd, version: ModelVersion
    ) -> None:
        silent_loaderd.refuse_with = LoaderdError("The store is <gone>.")
        assert "The store is &lt;gone&gt;." in console.get(self.url("load", version.pk)).content.decode()

    def test_an_optimisation_is_told_before_and_leads_to_its_operation(
        self, console: Client, silent_loaderd: FakeLoaderd
    ) -> None:
        silent_loaderd.plan = {
            "decision": "frees",
            "frees_bytes": 300 * 2**20,
            "sentence": "Unloading 1 model gives back 300 MiB.",
            "victims": [{"model_id": "old-v1", "bytes": 1, "gpu_bytes": 0, "reason": "not asked for 30 h"}],
        }
        page = console.get(self.url("optimize")).content.decode()
        assert "Frees 300 MiB: 1 model will be unloaded." in page
        assert "old-v1 (not asked for 30 h)" in page
        response = console.post(self.url("optimize"), {"confirmed": "yes"})
        operation = Operation.objects.get(kind="optimize")
        assert response["Location"] == reverse("admin:lifecycle_operation_change", args=[operation.pk])

    def test_many_selected_models_are_told_one_by_one(
        self, console: Client, silent_loaderd: FakeLoaderd, make_version: MakeVersion
    ) -> None:
        made = [make_version(f"m{number:02}") for number in range(22)]
        silent_loaderd.plan = {"decision": "fits", "sentence": "It fits."}
        action = {"action": "load_selected", "_selected_action": [version.pk for version in made]}
        page = console.post(reverse("admin:registry_modelversion_changelist"), action).content.decode()
        assert page.count("It fits.") == 20
        assert "and 2 more" in page
        console.post(reverse("admin:registry_modelversion_changelist"), {**action, "confirmed": "yes"})
        assert Operation.objects.filter(kind="load").count() == 22


class TestLineages:
    @pytest.fixture
    def mail(self, make_version: MakeVersion) -> Model:
        """v1 was live before v2."""
        first = make_version("mail-v1", lineage="mail", version="1")
        second = make_version("mail-v2", lineage="mail", version="2")
        Alias.objects.create(lineage=first.lineage, name="live", version=second, set_by="ada")
        for version, previous, kind in ((first, None, "first"), (second, first, "activate")):
            LineageChange.objects.create(
                lineage=first.lineage,
                alias="live",
                kind=kind,
                version=version,
                previous=previous,
                actor="ada",
                reason=f"because of {version}",
                at=timezone.now(),
            )
        return first.lineage

    @pytest.fixture
    def console(self, client: Client, admin: User, silent_loaderd: FakeLoaderd) -> Client:
        client.force_login(admin)
        return client

    def url(self, name: str, lineage: Model) -> str:
        return reverse(f"admin:registry_model_{name}", args=[lineage.pk])

    def texts(self, response: object) -> list[str]:
        return [str(message) for message in response.context["messages"]]

    def test_its_page_tells_aliases_and_who_was_live(self, console: Client, mail: Model) -> None:
        page = console.get(self.url("change", mail)).content.decode()
        assert "Roll back to mail-v1" in page
        assert "because of mail-v2" in page
        listed = console.get(reverse("admin:registry_model_changelist")).content.decode()
        assert "mail-v2" in listed

    def test_a_rollback_is_stated_confirmed_and_done(
        self, console: Client, silent_loaderd: FakeLoaderd, mail: Model
    ) -> None:
        silent_loaderd.plan = {"decision": "fits", "sentence": "mail-v1 needs 20 MiB; it fits."}
        page = console.get(self.url("rollback", mail)).content.decode()
        assert "mail-v1 needs 20 MiB; it fits." in page
        assert 'name="to" value="mail-v1"' in page
        assert not Operation.objects.exists()
        answer = console.post(self.url("rollback", mail), {"to": "mail-v1", "reason": "it is slow"}, follow=True)
        operation = Operation.objects.get()
        (told,) = self.texts(answer)
        assert told.startswith("The rollback to mail-v1 is under way:")
        assert reverse("admin:lifecycle_operation_change", args=[operation.pk]) in told
        assert (operation.kind, operation.version.model_id, operation.reason) == ("rollback", "mail-v1", "it is slow")

    def test_a_version_of_another_lineage_is_no_target(
        self, console: Client, mail: Model, make_version: MakeVersion
    ) -> None:
        make_version("other-v1")
        answer = console.post(self.url("rollback", mail), {"to": "other-v1"}, follow=True)
        assert self.texts(answer) == ["mail has no version other-v1."]
        assert not Operation.objects.exists()

    def test_without_an_earlier_version_there_is_nothing_to_confirm(
        self, console: Client, make_version: MakeVersion
    ) -> None:
        lineage = make_version("new-v1").lineage
        assert "No earlier version can be live again" in console.get(self.url("rollback", lineage)).content.decode()
        assert self.texts(console.post(self.url("rollback", lineage), follow=True))
        assert not Operation.objects.exists()

    def test_an_alias_is_set_and_removed(self, console: Client, mail: Model) -> None:
        first = ModelVersion.objects.get(model_id="mail-v1")
        answer = console.post(self.url("alias", mail), {"name": "candidate", "version": first.pk}, follow=True)
        assert self.texts(answer) == ["mail/candidate leads to mail-v1."]
        assert Alias.objects.get(name="candidate").version == first
        console.post(self.url("alias-remove", mail), {"name": "candidate"})
        assert not Alias.objects.filter(name="candidate").exists()

    @pytest.mark.parametrize("form", [{"name": "live"}, {"name": "!"}, {"name": "candidate", "version": "0"}])
    def test_a_bad_alias_is_told(self, console: Client, mail: Model, form: dict[str, str]) -> None:
        first = ModelVersion.objects.get(model_id="mail-v1")
        answer = console.post(self.url("alias", mail), {"version": first.pk, **form}, follow=True)
        assert len(self.texts(answer)) == 1
        assert Alias.objects.count() == 1

    def test_the_traffic_is_set(self, console: Client, mail: Model) -> None:
        first = ModelVersion.objects.get(model_id="mail-v1")
        Alias.objects.create(lineage=mail, name="candidate", version=first, set_by="ada")
        answer = console.post(self.url("traffic", mail), {"candidate_percent": "12.5", "shadow": "yes"}, follow=True)
        assert "12.5 %" in self.texts(answer)[0]
        mail.refresh_from_db()
        assert (mail.candidate_percent, mail.shadow) == (12.5, True)
        for bad in ("a lot", "101", ""):
            console.post(self.url("traffic", mail), {"candidate_percent": bad})
        mail.refresh_from_db()
        assert mail.candidate_percent == 12.5

    def test_each_needs_the_permission_and_a_post(
        self, client: Client, mail: Model, silent_loaderd: FakeLoaderd
    ) -> None:
        viewer = User.objects.create_user("viewer", is_staff=True)
        viewer.user_permissions.set(Permission.objects.filter(codename__in=["view_model", "view_modelversion"]))
        client.force_login(viewer)
        page = client.get(self.url("change", mail)).content.decode()
        for name in ("alias", "alias-remove", "traffic", "rollback"):
            assert self.url(name, mail) not in page
            assert client.post(self.url(name, mail)).status_code == 403
            assert client.get(self.url(name, mail)).status_code == 403
        assert not Operation.objects.exists()
