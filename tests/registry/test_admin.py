"""The registry in the admin: lists, buttons, rights, and how many queries a page costs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from modelhub.console import site
from modelhub.console.model_page.look import looks
from modelhub.lifecycle.models import LineageChange, LoaderStatus, Operation, StateChange
from modelhub.policy.effective import RULES_CHANNEL
from modelhub.registry.choices import DesiredState, Status
from modelhub.registry.models import Alias, DiscoveryRun, Model, ModelVersion
from modelhub.telemetry.models import Sample, Trace
from tests.registry.conftest import Store

pytestmark = pytest.mark.django_db
LIST = "admin:registry_modelversion_changelist"
# These ask at the control socket, which the workers share, for a plan: where no other test has a loaderd there.
asks_loaderd = pytest.mark.xdist_group("control-socket")


def url(name: str, *arguments: Any) -> str:
    return reverse(f"admin:registry_modelversion_{name}", args=arguments)


def policy(**fields: str) -> dict[str, str]:
    """The form of a model's page as it is opened, with these fields filled in."""
    opened = {"priority": "50", "max_batch_size": "64", "load_timeout_seconds": "", "threads": ""}
    serving = {"instances": "1", "max_queue": "1024", "precision": "", "cache_enabled": "", "cache_ttl_seconds": ""}
    return {**opened, **serving, "keep_alive_seconds": "", "memory_limit_mb": "", **fields}


def tab(client: Client, version: ModelVersion, name: str) -> str:
    """A tab of the model's page, as its script fetches it."""
    looks.forget()
    response = client.get(reverse("console:model-tab", args=[version.pk, name]), headers={"HX-Request": "true"})
    assert response.status_code == 200
    return str(response.content.decode())


def texts(response: Any) -> list[str]:
    return [str(message) for message in response.context["messages"]]


def confirmed_addresses(version: ModelVersion) -> list[str]:
    """Addresses that state an effect by GET and act by POST."""
    commands = ("load", "unload", "activate", "rollback", "forget_canary")
    return [url("optimize"), *(url(name, version.pk) for name in commands)]


@pytest.fixture
def version(store: Store, discovered: Callable[..., Any]) -> ModelVersion:
    store.add("topic/mail-v1", {"model.pkl": b"1"}, {"description": "<b>bold</b>", "name": "<i>Mail</i>"})
    discovered()
    return ModelVersion.objects.get()


@pytest.fixture
def staff(client: Client, django_user_model: Any) -> Callable[..., Client]:
    """A client whose user may do what is named."""

    def log_in(*permissions: str) -> Client:
        user = django_user_model.objects.create_user("staff", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        client.force_login(user)
        return client

    return log_in


@pytest.fixture
def loaderd(db: None) -> None:
    """A loaderd that was heard just now."""
    LoaderStatus.objects.create(pid=1, observed_at=timezone.now())


def register(count: int) -> None:
    """A registry as a big site has it: lineages with ten versions, some loaded, some used."""
    lineages = Model.objects.bulk_create(
        Model(name=f"lineage-{number:05}", type=("topic", "intent", "sentiment")[number % 3])
        for number in range(count // 10)
    )
    manifest = [{"path": "model.pkl", "size_bytes": 1 << 20, "mtime_ns": 1, "ctime_ns": 1, "sha256": "a" * 64}] * 5
    ModelVersion.objects.bulk_create(
        (
            ModelVersion(
                lineage=lineages[number // 10],
                model_id=f"lineage-{number // 10:05}-v{number % 10}",
                name=f"Model {number}",
                version=str(number % 10),
                path=f"topic/lineage-{number // 10:05}-v{number % 10}",
                framework=("sklearn", "transformers", "tensorflow")[number % 3],
                artifact_format="pickle",
                digest=f"{number:064}",
                manifest=manifest,
                size_bytes=5 << 20,
                status=Status.LOADED if number % 100 == 0 else Status.UNLOADED,
                private_bytes=200 << 20 if number % 100 == 0 else None,
                load_count=number % 7,
                last_used_at=timezone.now() if number % 5 == 0 else None,
            )
            for number in range(count)
        ),
        batch_size=1000,
    )


class TestQueries:
    def test_the_list_of_models_costs_the_same_at_any_size(self, admin_client: Client) -> None:
        searches = ["", "?p=3", "?q=lineage-00001", "?status__exact=loaded&framework=sklearn", "?attention=approval"]
        self.assert_constant(admin_client, [reverse(LIST) + search for search in searches], sizes=(1_000, 10_000))

    def test_the_list_of_lineages_costs_the_same_at_any_size(self, admin_client: Client) -> None:
        self.assert_constant(admin_client, [reverse("admin:registry_model_changelist")], sizes=(10, 1_000))

    def test_a_lineages_page_costs_the_same_with_many_versions(self, admin_client: Client) -> None:
        counts = []
        for total in (2, 100):
            Alias.objects.all().delete()
            ModelVersion.objects.all().delete()
            lineage, _ = Model.objects.get_or_create(name="mail")
            ModelVersion.objects.bulk_create(
                ModelVersion(
                    lineage=lineage, model_id=f"mail-v{number}", version=str(number), path=f"topic/mail{number}"
                )
                for number in range(total)
            )
            versions = list(lineage.versions.all())
            for number, version in enumerate(versions):
                Alias.objects.create(lineage=lineage, name=f"a{number}" if number else "live", version=version)
                LineageChange.objects.create(
                    lineage=lineage,
                    alias="live",
                    kind="activate",
                    version=version,
                    previous=versions[0],
                    actor="ada",
                    at=timezone.now(),
                )
            counts.append(
                [
                    self.queries(admin_client, reverse("admin:registry_model_change", args=[lineage.pk])),
                    self.queries(admin_client, url("change", versions[-1].pk)),
                ]
            )
        assert counts[0] == counts[1]
        assert max(counts[0]) < 24

    def assert_constant(self, client: Client, addresses: list[str], sizes: tuple[int, int]) -> None:
        counts = []
        for total in sizes:
            ModelVersion.objects.all().delete()
            Model.objects.all().delete()
            register(total)
            counts.append([self.queries(client, address) for address in addresses])
        assert counts[0] == counts[1]
        assert max(counts[1]) < 14

    def queries(self, client: Client, address: str) -> int:
        client.get(address)  # content types are read once a process
        site.counts.forget()  # the sidebar's counts are read once a second, for all pages
        with CaptureQueriesContext(connection) as queries:
            assert client.get(address).status_code == 200
        return len(queries)


class TestShown:
    def test_the_list_shows_what_is_true_now(self, admin_client: Client, version: ModelVersion, loaderd: None) -> None:
        ModelVersion.objects.update(status=Status.LOADED, private_bytes=256 << 20)
        page = admin_client.get(reverse(LIST)).content.decode()
        assert "unreachable" not in page
        assert "256 MiB" in page
        assert "1 new" in page

    def test_a_silent_loaderd_shows_no_stale_measurements(self, admin_client: Client, version: ModelVersion) -> None:
        ModelVersion.objects.update(status=Status.LOADED, private_bytes=256 << 20, pid=4711, health_status="healthy")
        for address in (reverse(LIST), url("change", version.pk)):
            page = admin_client.get(address).content.decode()
            assert ">unreachable</span>" in page
            assert "256 MiB" not in page
        assert "4711" not in page
        assert not re.search(r">\s*healthy\s*<", page)

    def test_a_safe_format_can_be_approved_too(self, admin_client: Client, store: Store, version: ModelVersion) -> None:
        """A skops file with types of its own is loaded after approval only."""
        store.add("topic/safe-v1")
        admin_client.post(url("discover"))
        safe = ModelVersion.objects.get(model_id="safe-v1")
        page = tab(admin_client, safe, "files")
        assert "No approval is needed unless loading says so" in page
        assert url("approve", safe.pk) in page
        admin_client.post(url("approve", safe.pk), {"digest": safe.digest})
        assert url("revoke", safe.pk) in tab(admin_client, safe, "files")

    def test_the_page_of_a_model_shows_all_of_it_escaped(self, admin_client: Client, version: ModelVersion) -> None:
        page = admin_client.get(url("change", version.pk)).content.decode()
        assert "<i>Mail</i>" not in page
        assert "&lt;i&gt;Mail&lt;/i&gt;" in page
        assert version.digest in page
        assert "Loading the format pickle can run code" in page
        files = tab(admin_client, version, "files")
        assert "<b>bold</b>" not in files
        assert "&lt;b&gt;bold&lt;/b&gt;" in files
        assert "Approve these files" in files

    def test_health_canary_measurements_aliases_and_rollbacks_are_told(
        self, admin_client: Client, version: ModelVersion, loaderd: None
    ) -> None:
        Alias.objects.create(lineage=version.lineage, name="champion", version=version, set_by="ada")
        now = timezone.now()
        ModelVersion.objects.update(
            status=Status.LOADED,
            health_status="degraded",
            health_reason="12 % of its predictions fail",
            canary={"inputs": [{"name": "text"}]},
            canary_ok=False,
            canary_at=now,
            canary_seconds=0.0123,
            heartbeat_at=now,
            measured_digest=version.digest,
            measured_device="cpu",
            measured_peak_bytes=512 << 20,
            rolled_back_at=now,
            rolled_back_reason="it was slow",
        )
        page = admin_client.get(url("change", version.pk)).content.decode()
        assert re.search(r">\s*degraded\s*<", page)
        for told in ("12 % of its predictions fail", "failed", "12.3 ms", "512 MiB", "measured on cpu"):
            assert told in page
        assert "A rollback left it" in page
        assert "it was slow" in page
        listed = admin_client.get(reverse(LIST)).content.decode()
        assert "champion" in listed
        assert ">degraded</span>" in listed

    @pytest.mark.parametrize("attention", ["refused", "gone", "stale", "approval"])
    def test_the_filter_finds_what_needs_attention(
        self, admin_client: Client, version: ModelVersion, attention: str
    ) -> None:
        values: dict[str, Any] = {
            "refused": {"refusal": "bad"},
            "gone": {"missing_since": timezone.now()},
            "stale": {"status": Status.LOADED, "loaded_digest": "other"},
            "approval": {},
        }
        admin_client.get(reverse(LIST))
        ModelVersion.objects.update(approved_digest=version.digest)
        assert admin_client.get(reverse(LIST), {"attention": attention}).context["cl"].result_count == 0
        ModelVersion.objects.update(approved_digest="", **values[attention])
        assert admin_client.get(reverse(LIST), {"attention": attention}).context["cl"].result_count == 1

    def test_the_page_of_a_discovery_lists_what_was_refused(
        self, admin_client: Client, store: Store, discovered: Callable[..., Any]
    ) -> None:
        store.add("topic/bad-v1", metadata="{")
        discovered()
        run = DiscoveryRun.objects.get()
        page = admin_client.get(reverse("admin:registry_discoveryrun_change", args=[run.pk])).content.decode()
        assert "topic/bad-v1" in page
        assert "metadata.json is not JSON" in page
        assert admin_client.get(reverse("admin:registry_discoveryrun_changelist")).status_code == 200


class TestSaving:
    def test_people_write_the_policy_and_nothing_else(self, admin_client: Client, version: ModelVersion) -> None:
        """The form was opened before loaderd wrote the rest."""
        form = policy(load_timeout_seconds="12.5", status="error", name="x")
        ModelVersion.objects.update(status=Status.LOADED, load_count=9)
        with CaptureQueriesContext(connection) as queries:
            admin_client.post(url("change", version.pk), form)
        (update,) = [query["sql"] for query in queries if query["sql"].startswith('UPDATE "registry_modelversion"')]
        assert "load_timeout_seconds" in update
        assert "status" not in update
        found = ModelVersion.objects.get()
        assert (found.load_timeout_seconds, found.status, found.load_count) == (12.5, Status.LOADED, 9)
        assert found.name == version.name

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("load_timeout_seconds", "-1"),
            ("load_timeout_seconds", "0"),
            ("threads", "0"),
            ("max_batch_size", "0"),
            ("priority", "101"),
            ("priority", ""),
            ("keep_alive_seconds", "0"),
            ("memory_limit_mb", "0"),
            ("instances", "0"),
            ("instances", "65"),
            ("max_queue", "0"),
            ("max_queue", "1000001"),
            ("precision", "fp8"),
            ("cache_ttl_seconds", "0"),
        ],
    )
    def test_a_wrong_policy_is_told_at_its_field(
        self, admin_client: Client, version: ModelVersion, field: str, value: str
    ) -> None:
        response = admin_client.post(url("change", version.pk), policy(**{field: value}))
        assert response.status_code == 200
        assert field in response.context["adminform"].form.errors
        assert ModelVersion.objects.get().max_batch_size == 64

    def test_a_policy_is_saved_and_leaves_who_changed_what(
        self, admin_client: Client, admin_user: Any, version: ModelVersion
    ) -> None:
        form = policy(pinned="on", priority="80", autoload="on", keep_alive_seconds="600", memory_limit_mb="512")
        assert admin_client.post(url("change", version.pk), form).status_code == 302
        found = ModelVersion.objects.get()
        assert (found.pinned, found.priority, found.autoload) == (True, 80, True)
        assert (found.keep_alive_seconds, found.memory_limit_mb) == (600.0, 512)
        assert (found.instances, found.max_queue, found.precision) == (1, 1024, "")
        assert (found.cache_enabled, found.cache_ttl_seconds) == (None, None)
        entry = LogEntry.objects.get()
        assert entry.user == admin_user
        assert "priority = 80 (was 50)" in entry.get_change_message()
        assert "keep_alive_seconds = 600.0 (was empty)" in entry.get_change_message()

    @pytest.mark.parametrize(("chosen", "kept"), [("true", True), ("false", False), ("unknown", None)])
    def test_how_it_serves_is_saved(
        self, admin_client: Client, version: ModelVersion, chosen: str, kept: bool | None
    ) -> None:
        serving = {"instances": "4", "max_queue": "16", "precision": "int8", "cache_ttl_seconds": "60"}
        form = policy(**serving, cache_enabled=chosen)
        assert admin_client.post(url("change", version.pk), form).status_code == 302
        found = ModelVersion.objects.get()
        assert (found.instances, found.max_queue, found.precision) == (4, 16, "int8")
        assert (found.cache_enabled, found.cache_ttl_seconds) == (kept, 60.0)
        page = admin_client.get(url("change", version.pk)).content.decode()
        assert "As the policy says" in page
        assert '<option value="int8" selected>8-bit integers</option>' in page

    @pytest.mark.django_db(transaction=True)
    def test_loaderd_hears_of_a_policy_at_once(self, client: Client, django_user_model: Any) -> None:
        client.force_login(django_user_model.objects.create_superuser("root"))
        register(10)
        version = ModelVersion.objects.first()
        settings = connection.get_connection_params()
        wanted = {name: settings[name] for name in ("dbname", "user", "password", "host", "port") if settings.get(name)}
        with psycopg.connect(**wanted, autocommit=True) as listener:
            listener.execute(f"LISTEN {RULES_CHANNEL}")
            assert client.post(url("change", version.pk), policy(pinned="on")).status_code == 302
            listener.execute("SELECT 1")
            assert len(list(listener.notifies(timeout=0))) == 1
            assert client.post(url("change", version.pk), policy(pinned="on")).status_code == 302
            listener.execute("SELECT 1")
            assert not list(listener.notifies(timeout=0))  # nothing was edited

    def test_nobody_adds_by_hand(self, admin_client: Client, version: ModelVersion) -> None:
        assert admin_client.get(url("add")).status_code == 403

    @pytest.mark.parametrize("held", [{"status": Status.LOADED}, {"desired_state": DesiredState.LOADED}])
    def test_what_is_loaded_is_not_deleted(self, admin_client: Client, version: ModelVersion, held: Any) -> None:
        ModelVersion.objects.update(**held)
        assert admin_client.post(url("delete", version.pk), {"post": "yes"}).status_code == 403
        action = {"action": "delete_selected", "_selected_action": [version.pk], "post": "yes"}
        admin_client.post(reverse(LIST), action)
        assert ModelVersion.objects.exists()

    def test_what_is_unloaded_is_deleted_with_its_history(self, admin_client: Client, version: ModelVersion) -> None:
        Operation.objects.create(kind="load", version=version, status="succeeded")
        StateChange.objects.create(
            version=version, from_state="unloaded", to_state="loading", actor="x", at=timezone.now()
        )
        assert admin_client.post(url("delete", version.pk), {"post": "yes"}).status_code == 302
        assert not ModelVersion.objects.exists()

    def test_its_history_is_counted_and_never_read(self, admin_client: Client, version: ModelVersion) -> None:
        now = timezone.now()
        operation = Operation.objects.create(kind="activate", version=version, status="succeeded")
        Trace.objects.bulk_create(
            Trace(version=version, at=now, status=200, route="live", total_seconds=1.0) for _ in range(30)
        )
        Sample.objects.create(version=version, at=now, seconds=10)
        kept = ModelVersion.objects.create(
            lineage=version.lineage, model_id="mail-v0", name="mail", version="0", path="topic/mail-v0"
        )
        change = StateChange.objects.create(
            version=kept, from_state="loaded", to_state="unloading", actor="x", at=now, operation=operation
        )
        with CaptureQueriesContext(connection) as captured:
            page = admin_client.get(url("delete", version.pk)).content.decode()
            assert admin_client.post(url("delete", version.pk), {"post": "yes"}).status_code == 302
        assert "30 traces" in page
        read = [query["sql"] for query in captured if query["sql"].startswith("SELECT")]
        assert not [sql for sql in read if "telemetry_trace" in sql and "COUNT" not in sql]
        assert not Trace.objects.exists()
        assert not Sample.objects.exists()
        assert list(ModelVersion.objects.all()) == [kept]
        change.refresh_from_db()
        assert change.operation is None

    def test_the_live_version_of_a_lineage_is_deleted_and_the_history_says_so(
        self, admin_client: Client, version: ModelVersion
    ) -> None:
        Alias.objects.create(lineage=version.lineage, name="live", version=version, set_by="loaderd")
        assert admin_client.post(url("delete", version.pk), {"post": "yes"}).status_code == 302
        assert not ModelVersion.objects.exists()
        change = LineageChange.objects.get()
        assert (change.kind, change.alias, change.actor, change.version) == ("remove", "live", "admin", None)
        assert change.details["previous_id"] == "mail-v1"

    def test_what_another_alias_leads_to_is_not_deleted(self, admin_client: Client, version: ModelVersion) -> None:
        Alias.objects.create(lineage=version.lineage, name="candidate", version=version, set_by="ada")
        assert admin_client.post(url("delete", version.pk), {"post": "yes"}).status_code != 302
        assert ModelVersion.objects.exists()


class TestCommands:
    @asks_loaderd
    def test_selected_models_are_loaded_and_unloaded(
        self, admin_client: Client, admin_user: Any, version: ModelVersion, loaderd: None
    ) -> None:
        ModelVersion.objects.update(approved_digest=version.digest)
        for kind in ("load", "unload"):
            action = {"action": f"{kind}_selected", "_selected_action": [version.pk]}
            asked = admin_client.post(reverse(LIST), action)
            assert f"{kind.capitalize()} mail-v1" in asked.content.decode()
            assert not Operation.objects.filter(kind=kind).exists()
            response = admin_client.post(reverse(LIST), {**action, "confirmed": "yes", "reason": "why"}, follow=True)
            operation = Operation.objects.first()
            assert [row.operation for row in response.context["all"]] == [operation]
            assert (operation.kind, operation.requested_by, operation.source) == (kind, admin_user, "admin")
            assert operation.reason == "why"

    def test_a_refused_command_says_why(self, admin_client: Client, version: ModelVersion, loaderd: None) -> None:
        response = admin_client.post(url("load", version.pk), follow=True)
        assert "approve" in texts(response)[0]
        assert not Operation.objects.exists()

    def test_without_loaderd_it_says_so(self, admin_client: Client, version: ModelVersion) -> None:
        ModelVersion.objects.update(approved_digest=version.digest)
        assert "loaderd is away" in texts(admin_client.post(url("load", version.pk), follow=True))[0]

    def test_approval_is_of_the_bytes_that_the_page_showed(
        self, admin_client: Client, admin_user: Any, version: ModelVersion
    ) -> None:
        response = admin_client.post(url("approve", version.pk), {"digest": "0" * 64}, follow=True)
        assert "changed meanwhile" in texts(response)[0]
        admin_client.post(url("approve", version.pk), {"digest": version.digest})
        assert ModelVersion.objects.get().approved_by == admin_user
        admin_client.post(url("revoke", version.pk))
        assert not ModelVersion.objects.get().is_approved

    def test_a_recorded_canary_is_forgotten_after_a_page_that_says_what_that_means(
        self, admin_client: Client, version: ModelVersion
    ) -> None:
        address = url("forget_canary", version.pk)
        assert address not in admin_client.get(url("change", version.pk)).content.decode(), "none is recorded"
        ModelVersion.objects.update(canary={"source": "recorded"}, canary_digest=version.digest)
        assert address in admin_client.get(url("change", version.pk)).content.decode()
        page = admin_client.get(address).content.decode()
        assert "What mail-v1 answered when it was loaded first is forgotten" in page
        assert 'name="reason"' in page
        assert ModelVersion.objects.get().canary is not None
        response = admin_client.post(address, {"confirmed": "yes", "reason": "sklearn 2"}, follow=True)
        assert texts(response) == ["The canary of mail-v1 is forgotten; its next load records a new one."]
        assert ModelVersion.objects.get().canary is None
        change = version.state_changes.get()
        assert (change.actor, change.reason) == ("admin", "the recorded canary was forgotten: sklearn 2")
        assert LogEntry.objects.get().change_message == "Recorded canary forgotten."

    def test_a_declared_canary_has_no_button_and_is_refused(self, admin_client: Client, version: ModelVersion) -> None:
        declared = {"canary": {"inputs": ["x"], "predictions": ["y"]}}
        ModelVersion.objects.update(canary={"source": "recorded"}, metadata=declared)
        address = url("forget_canary", version.pk)
        assert address not in admin_client.get(url("change", version.pk)).content.decode()
        page = admin_client.get(address).content.decode()
        assert "is declared in its metadata.json" in page
        assert 'name="reason"' not in page
        assert "is declared in its metadata.json" in texts(admin_client.post(address, follow=True))[0]
        assert ModelVersion.objects.get().canary is not None

    def test_discovery_runs_and_tells(self, admin_client: Client, store: Store, version: ModelVersion) -> None:
        store.add("topic/bad-v1", metadata="{")
        store.add("topic/good-v1")
        response = admin_client.post(url("discover"), follow=True)
        assert texts(response)[0] == "Discovery: 1 new, 1 unchanged, 1 refused."
        assert "topic/bad-v1 is refused. metadata.json is not JSON" in texts(response)[1]
        assert DiscoveryRun.objects.first().actor == "admin"

    def test_a_store_that_is_away_is_told(self, admin_client: Client, store: Store) -> None:
        store.root.rmdir()
        assert "Cannot list the store" in texts(admin_client.post(url("discover"), follow=True))[0]

    @asks_loaderd
    def test_nothing_happens_by_get(self, admin_client: Client, version: ModelVersion, loaderd: None) -> None:
        ModelVersion.objects.update(approved_digest=version.digest)
        before = ModelVersion.objects.values().get()
        asked = (url("discover"), url("approve", version.pk), url("revoke", version.pk))
        for address in (*asked, *confirmed_addresses(version)):
            assert admin_client.get(address).status_code == 200
            assert admin_client.put(address).status_code == 405
        assert not Operation.objects.exists()
        assert ModelVersion.objects.values().get() == before

    def test_nothing_happens_without_the_csrf_token(self, admin_user: Any, version: ModelVersion) -> None:
        client = Client(enforce_csrf_checks=True)
        client.force_login(admin_user)
        for address in [
            url("discover"),
            url("approve", version.pk),
            url("revoke", version.pk),
            *confirmed_addresses(version),
        ]:
            assert client.post(address).status_code == 403

    def test_each_command_needs_its_permission(self, staff: Callable[..., Client], version: ModelVersion) -> None:
        ModelVersion.objects.update(canary={"source": "recorded"})
        client = staff("view_modelversion")
        page = client.get(url("change", version.pk)).content.decode()
        for name in ("load", "unload", "activate", "rollback", "approve", "revoke", "forget_canary"):
            assert client.post(url(name, version.pk)).status_code == 403
            assert client.get(url(name, version.pk)).status_code in (403, 405)
            assert url(name, version.pk) not in page
        for method in (client.get, client.post):
            assert method(url("optimize")).status_code == 403
        assert client.post(url("discover")).status_code == 403
        listed = client.get(reverse(LIST))
        assert url("discover") not in listed.content.decode()
        assert url("optimize") not in listed.content.decode()
        assert "load_selected" not in listed.content.decode()

    def test_a_viewer_with_the_right_to_load_sees_that_button_only(
        self, staff: Callable[..., Client], version: ModelVersion
    ) -> None:
        page = staff("view_modelversion", "load_modelversion").get(url("change", version.pk)).content.decode()
        assert url("load", version.pk) in page
        assert url("unload", version.pk) not in page

    def test_strangers_are_sent_to_the_login(self, client: Client, version: ModelVersion) -> None:
        for address in (url("discover"), url("load", version.pk)):
            assert "/login/" in client.post(address)["Location"]
