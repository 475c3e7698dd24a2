"""Every action is asked for with its effect, done by POST, and told: in a dialog, and on pages without a script."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.messages import get_messages
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from loaderd.errors import LoaderdError, LoaderUnreachable
from loaderd.scheduler import Claim, Snapshot, Wish, decide
from loaderd.states import ModelState
from modelhub.conf import config
from modelhub.console.admin import effects, model_commands
from modelhub.lifecycle.models import LineageChange, LoaderStatus, Operation
from modelhub.registry.choices import DesiredState, Status
from modelhub.registry.models import Alias, DiscoveryRun, ModelVersion, large_columns
from modelhub.telemetry.models import Alert
from tests.console.conftest import MIB, MakeVersion, client_of
from tests.lifecycle.fake_loaderd import FakeLoaderd

# A loaderd is put at the control socket, which the workers share.
pytestmark = [pytest.mark.django_db, pytest.mark.xdist_group("control-socket")]
DIALOG = {"HX-Request": "true"}
HOUR = 3600.0


@pytest.fixture
def daemon(loaderd: LoaderStatus) -> Iterator[FakeLoaderd]:
    """Takes commands and reports nothing; heard for the length of a test."""
    LoaderStatus.objects.update(observed_at=timezone.now() + timedelta(hours=1))
    fake = FakeLoaderd(config().control_socket)
    fake.plan = plan(free=600)
    yield fake
    fake.close()


def plan(free: int, needs: int = 412, model_id: str = "mail-v1", *claims: Claim, **more: Any) -> dict[str, Any]:
    """What loaderd answers to a dry run of a load, in MiB; claims hold what is not free of 600."""
    snapshot = Snapshot(claims=claims, budget_bytes=600 * MIB)
    assert free * MIB == 600 * MIB - sum(claim.bytes for claim in claims)
    wish = Wish(model_id, needs * MIB, measured=True)
    return {**decide(snapshot, wish, min_residency_seconds=0.0).to_message(), **more}


def idle(model_id: str, mib: int, **more: Any) -> Claim:
    held = mib * MIB
    return Claim(
        model_id, ModelState.LOADED, held, frees_bytes=held, idle_seconds=3 * HOUR, resident_seconds=9 * HOUR, **more
    )


def url(command: str, version: ModelVersion | None = None) -> str:
    return reverse(f"admin:registry_modelversion_{command}", args=[] if version is None else [version.pk])


def lineage_url(command: str, version: ModelVersion) -> str:
    return reverse(f"admin:registry_model_{command}", args=[version.lineage_id])


def dialog(client: Client, address: str, status: int = 200) -> str:
    response = client.get(address, headers=DIALOG)
    assert response.status_code == status
    text = response.content.decode()
    assert 'id="mh-dialog-title"' in text
    assert "<html" not in text
    return text


def make_live(version: ModelVersion) -> None:
    Alias.objects.update_or_create(lineage=version.lineage, name="live", defaults={"version": version, "set_by": "ada"})
    LineageChange.objects.create(
        lineage=version.lineage, alias="live", kind="activate", version=version, actor="ada", at=timezone.now()
    )


class TestEffects:
    """What a dialog says, made of loaderd's own plans."""

    def test_a_load_that_fits(self, admin: Client, daemon: FakeLoaderd, make_version: MakeVersion) -> None:
        shown = dialog(admin, url("load", make_version()))
        assert "Load mail-v1" in shown
        assert "Loads 412 MiB." in shown
        assert "600 MiB of 600 MiB are free: it fits." in shown
        assert 'name="reason"' in shown
        assert f'hx-post="{url("load", ModelVersion.objects.get())}"' in shown

    def test_a_load_that_evicts_names_who_has_to_go_and_why(
        self, admin: Client, daemon: FakeLoaderd, make_version: MakeVersion
    ) -> None:
        daemon.plan = plan(300, 412, "mail-v1", idle("topic-v2", 300))
        shown = dialog(admin, url("load", make_version()))
        assert "Loads 412 MiB; will evict topic-v2 (idle 3 h" in shown

    def test_many_victims_are_listed(self, admin: Client, daemon: FakeLoaderd, make_version: MakeVersion) -> None:
        daemon.plan = plan(0, 600, "mail-v1", *(idle(f"old-v{number}", 200) for number in (1, 2, 3)))
        shown = dialog(admin, url("load", make_version()))
        assert "will evict 3 models." in shown
        assert all(f"old-v{number} (idle 3 h" in shown for number in (1, 2, 3))

    def test_a_load_that_waits(self, admin: Client, daemon: FakeLoaderd, make_version: MakeVersion) -> None:
        daemon.plan = plan(300, 412, "mail-v1", idle("busy-v1", 300, in_flight=2))
        shown = dialog(admin, url("load", make_version()))
        assert "Loads 412 MiB; waits until there is room." in shown
        assert "busy-v1 (2 requests in flight)" in shown

    def test_what_does_not_fit_has_no_yes_and_a_next_step(
        self, admin: Client, daemon: FakeLoaderd, make_version: MakeVersion
    ) -> None:
        daemon.plan = plan(300, 412, "mail-v1", idle("kept-v1", 300, pinned=True))
        shown = dialog(admin, url("load", make_version()))
        assert "It does not fit." in shown
        assert "kept-v1 (300 MiB): pinned" in shown
        assert f'data-mh-dialog="{url("optimize")}"' in shown
        assert 'type="submit"' not in shown
        assert 'name="reason"' not in shown

    def test_a_loaded_model_is_not_loaded_again(
        self, admin: Client, daemon: FakeLoaderd, make_loaded: MakeVersion
    ) -> None:
        loaded = make_loaded(desired_state=DesiredState.LOADED)
        shown = dialog(admin, url("load", loaded))
        assert "It is loaded already: nothing would change." in shown
        assert 'type="submit"' not in shown
        ModelVersion.objects.update(digest="b" * 64)
        assert url("unload", loaded) in dialog(admin, url("load", loaded))

    def test_files_that_nobody_approved_lead_to_the_approval(
        self, admin: Client, operator: Client, daemon: FakeLoaderd, make_version: MakeVersion
    ) -> None:
        pickle = make_version(artifact_format="pickle")
        shown = dialog(admin, url("load", pickle))
        assert "can run any code when it is loaded" in shown
        assert f'data-mh-dialog="{url("approve", pickle)}"' in shown
        assert url("approve", pickle) not in dialog(operator, url("load", pickle)), "who may not approve"

    def test_an_unload_tells_what_comes_back_and_who_is_finished_first(
        self, admin: Client, daemon: FakeLoaderd, make_loaded: MakeVersion
    ) -> None:
        daemon.plan = {"decision": "frees", "frees_bytes": 380 * MIB, "in_flight": 2, "sentence": "x"}
        loaded = make_loaded()
        assert "Frees 380 MiB; 2 requests in flight will be finished first." in dialog(admin, url("unload", loaded))
        daemon.plan = {**daemon.plan, "in_flight": 0}
        shown = dialog(admin, url("unload", loaded))
        assert "Frees 380 MiB." in shown
        assert "live version" not in shown

    @pytest.mark.parametrize(("autoload", "told"), [(False, "nobody answers for that name"), (True, "(autoload)")])
    def test_an_unload_of_the_live_version_says_what_that_means(
        self, admin: Client, daemon: FakeLoaderd, make_loaded: MakeVersion, autoload: bool, told: str
    ) -> None:
        daemon.plan = {"decision": "frees", "frees_bytes": 1, "in_flight": 0, "sentence": "x"}
        live = make_loaded(autoload=autoload)
        make_live(live)
        shown = dialog(admin, url("unload", live))
        assert "It is the live version of mail" in shown
        assert told in shown

    def test_what_is_not_loaded_is_not_unloaded(
        self, admin: Client, daemon: FakeLoaderd, make_version: MakeVersion
    ) -> None:
        daemon.plan = {"decision": "frees", "frees_bytes": 0, "in_flight": 0, "sentence": "x"}
        shown = dialog(admin, url("unload", make_version()))
        assert "there is nothing to unload" in shown
        assert 'type="submit"' not in shown

    def test_an_activation_says_which_version_it_replaces(
        self, admin: Client, daemon: FakeLoaderd, make_version: MakeVersion, make_loaded: MakeVersion
    ) -> None:
        make_live(make_loaded("mail-v1"))
        new = make_version("mail-v2")
        daemon.plan = plan(600, 40, "mail-v2", replaces="mail-v1", needs_gap=False)
        shown = dialog(admin, url("activate", new))
        assert "Makes mail-v2 live in mail in place of mail-v1. Loads 40 MiB." in shown
        assert "mail-v1 answers until mail-v2 does; then it finishes its requests and is unloaded." in shown
        assert "allow_gap" not in shown

    def test_a_gap_is_stated_and_has_to_be_allowed(
        self, admin: Client, daemon: FakeLoaderd, make_version: MakeVersion
    ) -> None:
        new = make_version("mail-v2")
        daemon.plan = plan(600, 400, "mail-v2", replaces="mail-v1", needs_gap=True)
        shown = dialog(admin, url("activate", new))
        assert "mail-v1 is unloaded first, and nobody answers for mail until mail-v2 is loaded" in shown
        assert 'name="allow_gap"' in shown

    def test_a_first_activation_replaces_nobody(
        self, admin: Client, daemon: FakeLoaderd, make_version: MakeVersion
    ) -> None:
        daemon.plan = plan(600, 40, replaces=None, needs_gap=False)
        shown = dialog(admin, url("activate", make_version()))
        assert "Makes mail-v1 the live version of mail, which has none. Loads 40 MiB." in shown

    def test_a_rollback_says_what_becomes_of_the_version_that_it_leaves(
        self, admin: Client, daemon: FakeLoaderd, make_version: MakeVersion, make_loaded: MakeVersion
    ) -> None:
        old = make_version("mail-v1")
        make_live(old)
        make_live(make_loaded("mail-v2"))
        daemon.plan = plan(600, 40, replaces="mail-v2", needs_gap=False)
        for address in (url("rollback", old), lineage_url("rollback", old)):
            shown = dialog(admin, address)
            assert "Makes mail-v1 live in mail in place of mail-v2." in shown
            assert "mail-v2 is marked as left by a rollback" in shown

    def test_without_an_earlier_version_it_says_why_and_what_to_do_instead(
        self, admin: Client, daemon: FakeLoaderd, make_version: MakeVersion, make_loaded: MakeVersion
    ) -> None:
        live, other = make_loaded("mail-v1"), make_version("mail-v2")
        shown = dialog(admin, lineage_url("rollback", live))
        assert "mail has no live version" in shown
        make_live(live)
        shown = dialog(admin, lineage_url("rollback", live))
        assert "No earlier version can be live again." in shown
        assert "mail-v1 is the only version of mail that ever was live." in shown
        assert f'data-mh-dialog="{url("activate", other)}"' in shown
        make_live(other)
        make_live(live)
        ModelVersion.objects.filter(pk=other.pk).update(rolled_back_at=timezone.now())
        assert "(mail-v2) each was left by a rollback" in dialog(admin, lineage_url("rollback", live))

    def test_another_switch_under_way_can_be_followed(
        self, admin: Client, daemon: FakeLoaderd, make_version: MakeVersion
    ) -> None:
        new, other = make_version("mail-v2"), make_version("mail-v3")
        under_way = Operation.objects.create(kind="activate", version=other)
        shown = dialog(admin, url("activate", new))
        assert "The activation of mail-v3 is under way" in shown
        assert reverse("console:operation-follow", args=[under_way.pk]) in shown

    def test_an_optimisation_names_whom_it_unloads(self, admin: Client, daemon: FakeLoaderd) -> None:
        victim = {"model_id": "old-v1", "bytes": 300 * MIB, "gpu_bytes": 0, "reason": "idle 30 h"}
        daemon.plan = {"decision": "frees", "frees_bytes": 300 * MIB, "victims": [victim], "sentence": "x"}
        shown = dialog(admin, url("optimize"))
        assert "Frees 300 MiB: 1 model will be unloaded." in shown
        assert "old-v1 (idle 30 h): 300 MiB" in shown
        daemon.plan = {"decision": "frees", "frees_bytes": 0, "victims": [], "sentence": "Every model is in use."}
        shown = dialog(admin, url("optimize"))
        assert "There is nothing to unload." in shown
        assert "Every model is in use." in shown
        assert 'type="submit"' not in shown

    def test_what_loaderd_says_is_escaped(self, admin: Client, daemon: FakeLoaderd, make_version: MakeVersion) -> None:
        daemon.refuse_with = LoaderdError("The store is <gone>.")
        assert "The store is &lt;gone&gt;." in dialog(admin, url("load", make_version()))


class TestWithoutLoaderd:
    @pytest.mark.parametrize("command", ["load", "unload", "activate", "optimize"])
    def test_it_says_so_at_once_and_offers_no_yes(self, admin: Client, make_version: MakeVersion, command: str) -> None:
        version = None if command == "optimize" else make_version(status=Status.UNLOADED)
        shown = dialog(admin, url(command, version) if version else url(command))
        assert "loaderd is away (it has never run)" in shown
        assert 'type="submit"' not in shown

    def test_who_asks_all_the_same_gets_the_question_again_with_the_reason(
        self, admin: Client, make_version: MakeVersion
    ) -> None:
        response = admin.post(url("load", make_version()), {"reason": "now"}, headers=DIALOG)
        assert response.status_code == 409
        assert "loaderd is away" in response.content.decode()
        assert not Operation.objects.exists()

    def test_one_that_runs_and_does_not_answer_in_time_leaves_the_effect_unknown(
        self, admin: Client, loaderd: LoaderStatus, make_version: MakeVersion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        LoaderStatus.objects.update(observed_at=timezone.now() + timedelta(hours=1))

        def silent(version: ModelVersion) -> dict[str, Any]:
            raise LoaderUnreachable("no answer") from TimeoutError("timed out")

        monkeypatch.setattr("modelhub.console.admin.model_commands.plan_load", silent)
        shown = dialog(admin, url("load", make_version()))
        assert "What this would do is not known" in shown
        assert "timed out" in shown
        assert 'type="submit"' in shown

    def test_plans_of_many_share_one_bound(
        self, admin: Client, daemon: FakeLoaderd, make_version: MakeVersion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        versions = [make_version(f"mail-v{number}") for number in range(3)]
        moments = iter([0.0, 1.0, 6.0, 7.0])  # the bound begins, then one look a model
        monkeypatch.setattr(effects.time, "monotonic", lambda: next(moments, 8.0))
        found = effects.effects_of(
            versions,
            lambda version: {"sentence": "It fits."},
            lambda version, said: effects.Effect(version.model_id, said["sentence"]),
            None,
        )
        assert found[0].headline == "It fits."
        assert all("is not known" in effect.headline for effect in found[1:])


class TestActing:
    @pytest.mark.parametrize(("command", "kind"), [("load", "load"), ("activate", "activate"), ("unload", "unload")])
    def test_a_yes_is_followed_by_the_progress_in_place(
        self, admin: Client, daemon: FakeLoaderd, make_version: MakeVersion, command: str, kind: str
    ) -> None:
        version = make_version(status=Status.LOADED if command == "unload" else Status.UNLOADED)
        response = admin.post(url(command, version), {"reason": "a new release"}, headers=DIALOG)
        operation = Operation.objects.get()
        assert (operation.kind, operation.reason, operation.source) == (kind, "a new release", "admin")
        shown = response.content.decode()
        assert f'hx-get="{reverse("console:operation", args=[operation.pk])}"' in shown
        assert "every 500ms" in shown
        assert response.headers["HX-Trigger"] == "mh:changed"

    def test_a_gap_that_was_allowed_is_passed_on(
        self, admin: Client, daemon: FakeLoaderd, make_version: MakeVersion
    ) -> None:
        admin.post(url("activate", make_version()), {"allow_gap": "yes"}, headers=DIALOG)
        assert Operation.objects.get().parameters["allow_gap"] is True

    def test_without_a_script_a_message_leads_to_the_operation(
        self, admin: Client, daemon: FakeLoaderd, make_version: MakeVersion
    ) -> None:
        version = make_version()
        response = admin.post(url("load", version), {"reason": ""}, follow=True)
        assert response.redirect_chain[0][0] == url("change", version)
        operation = Operation.objects.get()
        assert operation.reason == "asked for in the admin"
        (told,) = [str(message) for message in response.context["messages"]]
        assert told.startswith("The load of mail-v1 is under way:")
        assert reverse("admin:lifecycle_operation_change", args=[operation.pk]) in told
        page = admin.get(url("load", version))
        assert page.templates[0].name == "console/confirm.html"
        assert "Loads 412 MiB." in page.content.decode()

    def test_approval_is_asked_for_with_the_files_and_given_to_these_bytes_alone(
        self, admin: Client, make_version: MakeVersion
    ) -> None:
        manifest = [{"path": "model.pkl", "size_bytes": 3 * MIB}]
        version = make_version(artifact_format="pickle", manifest=manifest)
        shown = dialog(admin, url("approve", version))
        assert "Allows these files to run code on this machine" in shown
        assert "model.pkl, 3 MiB" in shown
        sent = {f"digest-{version.pk}": version.digest}
        assert f'name="digest-{version.pk}" value="{version.digest}"' in shown
        ModelVersion.objects.update(digest="b" * 64)
        response = admin.post(url("approve", version), sent, headers=DIALOG)
        assert response.status_code == 409
        assert "changed meanwhile" in response.content.decode()
        assert admin.post(url("approve", version), {}, headers=DIALOG).status_code == 409, "nothing was looked at"
        assert not ModelVersion.objects.get().is_approved
        response = admin.post(url("approve", version), {f"digest-{version.pk}": "b" * 64}, headers=DIALOG)
        assert "mail-v1 is approved with digest bbbbbbbbbbbb." in response.content.decode()
        assert response.headers["HX-Trigger"] == "mh:changed"
        assert url("load", version) in response.content.decode()
        assert ModelVersion.objects.get().is_approved
        assert "These files are approved already." in dialog(admin, url("approve", version))

    def test_an_approval_is_taken_back(self, admin: Client, make_loaded: MakeVersion) -> None:
        version = make_loaded(approved_digest="a" * 64)
        shown = dialog(admin, url("revoke", version))
        assert "From now on loading these files is refused" in shown
        assert "stays there until it is unloaded" in shown
        response = admin.post(url("revoke", version), headers=DIALOG)
        assert "The approval of mail-v1 is taken back." in response.content.decode()
        assert not ModelVersion.objects.get().is_approved
        assert 'type="submit"' not in dialog(admin, url("revoke", version))

    def test_a_canary_is_forgotten(self, admin: Client, make_version: MakeVersion) -> None:
        version = make_version(canary={"source": "recorded"}, canary_digest="a" * 64)
        assert "What mail-v1 answered when it was loaded first is forgotten" in dialog(
            admin, url("forget_canary", version)
        )
        response = admin.post(url("forget_canary", version), headers=DIALOG)
        assert "its next load records a new one" in response.content.decode()
        assert ModelVersion.objects.get().canary is None
        shown = dialog(admin, url("forget_canary", version))
        assert "No canary is recorded of mail-v1" in shown
        assert 'type="submit"' not in shown

    def test_discovery_tells_what_it_found_in_place(
        self, admin: Client, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = tmp_path.resolve()
        for name in ("good-v1", "bad-v1"):
            (store / "topic" / name).mkdir(parents=True)
            (store / "topic" / name / "model.skops").write_bytes(name.encode())
        (store / "topic" / "bad-v1" / "metadata.json").write_text("{")
        monkeypatch.setattr(config(), "MODELS_DIR", store)
        assert f"Compares {store} with the registry." in dialog(admin, url("discover"))
        assert not DiscoveryRun.objects.exists()
        response = admin.post(url("discover"), headers=DIALOG)
        shown = response.content.decode()
        assert "Discovery: 1 new, 1 refused." in shown
        assert "topic/bad-v1 is refused. metadata.json is not JSON" in shown
        run = DiscoveryRun.objects.get()
        assert reverse("admin:registry_discoveryrun_change", args=[run.pk]) in shown
        monkeypatch.setattr(config(), "MODELS_DIR", store / "away")
        response = admin.post(url("discover"), headers=DIALOG)
        assert response.status_code == 409
        assert "Cannot list the store" in response.content.decode()

    def test_an_alert_is_acknowledged(self, admin: Client, operator: Client, viewer: Client) -> None:
        now = timezone.now()
        alert = Alert.objects.create(kind="memory", message="mail-v1 <grows>", opened_at=now, last_seen_at=now)
        address = reverse("console:alert-acknowledge", args=[alert.pk])
        assert "mail-v1 &lt;grows&gt;" in dialog(operator, address)
        assert viewer.post(address, headers=DIALOG).status_code == 403
        response = operator.post(address, headers=DIALOG)
        assert response.headers["HX-Trigger"] == "mh:changed"
        alert.refresh_from_db()
        assert alert.acknowledged_by_name == "olaf"
        assert LogEntry.objects.get().change_message == "Acknowledged."
        assert "olaf has acknowledged it already" in dialog(admin, address)
        Alert.objects.update(resolved_at=now)
        assert "It is resolved" in dialog(admin, address)

    def test_a_resolved_alert_is_not_acknowledged(self, operator: Client) -> None:
        now = timezone.now()
        alert = Alert.objects.create(kind="memory", message="x", opened_at=now, last_seen_at=now, resolved_at=now)
        response = operator.post(reverse("console:alert-acknowledge", args=[alert.pk]), headers=DIALOG)
        assert response.status_code == 409
        assert "nothing is left to acknowledge" in response.content.decode()


class TestLineages:
    @pytest.fixture
    def live(self, make_loaded: MakeVersion) -> ModelVersion:
        version = make_loaded("mail-v1")
        make_live(version)
        return version

    @pytest.fixture
    def other(self, make_version: MakeVersion) -> ModelVersion:
        return make_version("mail-v2")

    def test_an_alias_is_set(self, admin: Client, live: ModelVersion, other: ModelVersion) -> None:
        shown = dialog(admin, lineage_url("alias", live))
        assert "mail/candidate is new." in shown
        assert f'<option value="{other.pk}" selected>' in shown, "not the live one"
        response = admin.post(lineage_url("alias", live), {"name": "candidate", "version": other.pk}, headers=DIALOG)
        shown = response.content.decode()
        assert "mail/candidate leads to mail-v2." in shown
        assert lineage_url("traffic", live) in shown
        assert "mail/candidate leads to mail-v2 now." in dialog(admin, lineage_url("alias", live))

    def test_a_refused_alias_keeps_what_was_typed(self, admin: Client, live: ModelVersion) -> None:
        sent = {"name": "no name!", "version": live.pk, "reason": "because"}
        response = admin.post(lineage_url("alias", live), sent, headers=DIALOG)
        assert response.status_code == 409
        shown = response.content.decode()
        assert "is no name for an alias" in shown
        assert 'value="no name!"' in shown
        assert 'value="because"' in shown
        assert f'<option value="{live.pk}" selected>' in shown

    def test_an_alias_is_removed(self, admin: Client, live: ModelVersion, other: ModelVersion) -> None:
        Alias.objects.create(lineage=live.lineage, name="candidate", version=other, set_by="ada")
        type(live.lineage).objects.update(candidate_percent=12.5, shadow=True)
        address = f"{lineage_url('alias-remove', live)}?name=candidate"
        shown = dialog(admin, address)
        assert "Requests for mail/candidate are answered 404 from then on; mail-v2 stays as it is." in shown
        assert "12.5 % to the candidate, and copies of what live answers" in shown
        response = admin.post(address, {"name": "candidate"}, headers=DIALOG)
        assert "mail has no alias candidate any more." in response.content.decode()
        assert not Alias.objects.filter(name="candidate").exists()

    @pytest.mark.parametrize("name", ["live", "nobody", "%00"])
    def test_some_aliases_are_not_removed(self, admin: Client, live: ModelVersion, name: str) -> None:
        response = admin.get(lineage_url("alias-remove", live), {"name": name}, headers=DIALOG)
        assert response.status_code == 200
        assert 'type="submit"' not in response.content.decode()
        assert admin.get(lineage_url("alias", live), {"name": name}, headers=DIALOG).status_code == 200

    def test_the_traffic_is_set(self, admin: Client, live: ModelVersion, other: ModelVersion) -> None:
        shown = dialog(admin, lineage_url("traffic", live))
        assert "mail has no candidate to send traffic to." in shown
        assert f'data-mh-dialog="{lineage_url("alias", live)}?name=candidate"' in shown
        assert 'type="submit"' not in shown
        Alias.objects.create(lineage=live.lineage, name="candidate", version=other, set_by="ada")
        shown = dialog(admin, lineage_url("traffic", live))
        assert "so many are answered by mail-v2, drawn at random; the rest by mail-v1" in shown
        assert "mail-v2 is unloaded: until it is loaded, live answers all requests." in shown
        response = admin.post(
            lineage_url("traffic", live), {"candidate_percent": "12.5", "shadow": "yes"}, headers=DIALOG
        )
        assert "12.5 %" in response.content.decode()
        assert live.lineage.__class__.objects.get().candidate_percent == 12.5
        assert 'value="12.5"' in dialog(admin, lineage_url("traffic", live))
        response = admin.post(lineage_url("traffic", live), {"candidate_percent": "a lot"}, headers=DIALOG)
        assert response.status_code == 409
        assert 'value="a lot"' in response.content.decode()


class TestPermissions:
    @pytest.fixture
    def addresses(self, make_loaded: MakeVersion) -> list[str]:
        version = make_loaded(canary={"source": "recorded"}, canary_digest="a" * 64)
        make_live(version)
        commands = ("load", "unload", "activate", "rollback", "approve", "revoke", "forget_canary")
        now = timezone.now()
        alert = Alert.objects.create(kind="memory", message="x", opened_at=now, last_seen_at=now)
        return [
            *(url(command, version) for command in commands),
            url("optimize"),
            url("discover"),
            *(lineage_url(command, version) for command in ("alias", "alias-remove", "traffic", "rollback")),
            reverse("console:alert-acknowledge", args=[alert.pk]),
        ]

    def test_a_viewer_is_refused_whatever_is_forged(self, viewer: Client, addresses: list[str]) -> None:
        for address in addresses:
            for method in (viewer.get, viewer.post):
                assert method(address).status_code == 403, address
                response = method(address, headers=DIALOG)
                assert response.status_code == 403, address
                assert "vera may not" in response.content.decode()
        assert not Operation.objects.exists()
        assert not LogEntry.objects.exists()

    def test_nothing_is_done_without_the_token(self, admin: Client, addresses: list[str]) -> None:
        client = Client(enforce_csrf_checks=True)
        client.force_login(User.objects.get(username="ada"))
        for address in addresses:
            assert client.post(address, headers=DIALOG).status_code == 403, address
        assert not Operation.objects.exists()

    def test_nothing_else_than_asking_and_doing(self, admin: Client, addresses: list[str]) -> None:
        for address in addresses:
            assert admin.put(address).status_code == 405, address
            assert admin.delete(address).status_code == 405, address

    def test_strangers_meet_the_login(self, client: Client, addresses: list[str]) -> None:
        for address in addresses:
            assert "/login/" in client.post(address)["Location"]

    def test_each_permission_opens_its_own_dialog_alone(self, daemon: FakeLoaderd, make_version: MakeVersion) -> None:
        from django.contrib.auth.models import Permission

        user = User.objects.create_user("lea", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename="load_modelversion"))
        client, version = client_of(user), make_version()
        assert client.get(url("load", version), headers=DIALOG).status_code == 200
        assert client.get(url("unload", version), headers=DIALOG).status_code == 403
        shown = client.post(url("load", version), headers=DIALOG).content.decode()
        assert "You may not see operations" in shown
        assert "hx-get" not in shown


class TestMany:
    def post(self, client: Client, command: str, versions: list[ModelVersion], **sent: Any) -> Any:
        selected = {"action": f"{command}_selected", "_selected_action": [version.pk for version in versions]}
        return client.post(url("changelist"), {**selected, **sent})

    def test_effects_first_then_all_operations_on_one_page(
        self, admin: Client, daemon: FakeLoaderd, make_version: MakeVersion
    ) -> None:
        made = [make_version(f"mail-v{number:02}") for number in range(22)]
        page = self.post(admin, "load", made).content.decode()
        assert "Load 22 models" in page
        assert page.count("Loads 412 MiB.") == 20
        assert "and 2 more" in page
        assert not Operation.objects.exists()
        answer = self.post(admin, "load", made, confirmed="yes", reason="morning")
        assert Operation.objects.filter(kind="load", reason="morning").count() == 22
        followed = admin.get(answer["Location"])
        assert followed.status_code == 200
        shown = followed.content.decode()
        assert "0 of 22 ended" in shown
        assert all(version.model_id in shown for version in made)

    def test_one_that_is_refused_does_not_stop_the_others(
        self, admin: Client, daemon: FakeLoaderd, make_version: MakeVersion
    ) -> None:
        bad, good = make_version("bad-v1", artifact_format="pickle"), make_version("good-v1")
        page = self.post(admin, "load", [bad, good]).content.decode()
        assert "can run any code" in page
        answer = self.post(admin, "load", [bad, good], confirmed="yes")
        assert Operation.objects.get().version == good
        shown = admin.get(answer["Location"]).content.decode()
        assert "bad-v1 is a pickle, which can run any code" in shown

    def test_many_refusals_are_counted(self, admin: Client, daemon: FakeLoaderd, make_version: MakeVersion) -> None:
        made = [make_version(f"bad-v{number:02}", artifact_format="pickle") for number in range(23)]
        answer = self.post(admin, "load", made, confirmed="yes")
        told = [str(message) for message in get_messages(answer.wsgi_request)]
        assert [text.partition(" ")[0] for text in told[:20]] == [version.model_id for version in made[:20]]
        assert told[20:] == ["3 more were refused: 23 in all."]

    def test_more_than_can_be_done_in_a_request_are_not_begun(
        self, admin: Client, daemon: FakeLoaderd, make_version: MakeVersion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(model_commands, "MOST_AT_ONCE", 2)
        made = [make_version(f"mail-v{number}") for number in range(3)]
        for sent in ({}, {"confirmed": "yes"}):
            answer = self.post(admin, "load", made[:1], select_across="1", **sent)
            assert answer["Location"] == url("changelist")
            told = [str(message) for message in get_messages(answer.wsgi_request)]
            assert "3 models are chosen; at most 2 are taken at once, so nothing was done." in told[-1]
        assert not Operation.objects.exists()
        self.post(admin, "load", made[:2], confirmed="yes")
        assert Operation.objects.count() == 2

    @pytest.mark.parametrize("command", ["load", "unload", "approve"])
    def test_files_and_texts_of_models_are_not_read_for_it(
        self,
        admin: Client,
        daemon: FakeLoaderd,
        make_version: MakeVersion,
        monkeypatch: pytest.MonkeyPatch,
        command: str,
    ) -> None:
        monkeypatch.setattr(model_commands, "CHUNK", 2)
        made = [make_version(f"mail-v{number}", manifest=[{"path": "x", "size_bytes": 1}]) for number in range(5)]
        digests = {f"digest-{version.pk}": version.digest for version in made}
        with CaptureQueriesContext(connection) as queries:
            self.post(admin, command, made, confirmed="yes", **digests)
        large = [f'"registry_modelversion"."{name}"' for name in large_columns()]
        assert not [query["sql"] for query in queries if any(name in query["sql"] for name in large)]
        if command == "approve":
            assert ModelVersion.objects.exclude(approved_at=None).count() == 5
        else:
            assert Operation.objects.filter(kind=command).count() == 5

    def test_when_all_are_refused_it_says_so_on_the_list(
        self, admin: Client, make_version: MakeVersion, loaderd: LoaderStatus
    ) -> None:
        bad = make_version(artifact_format="pickle")
        answer = self.post(admin, "load", [bad], confirmed="yes")
        assert answer["Location"] == url("changelist")
        assert not Operation.objects.exists()

    def test_only_files_that_were_shown_are_approved(self, admin: Client, make_version: MakeVersion) -> None:
        made = [make_version(f"mail-v{number:02}", artifact_format="pickle") for number in range(21)]
        page = self.post(admin, "approve", made)
        shown = page.content.decode()
        assert shown.count("Allows these files to run code") == 20
        assert not ModelVersion.objects.exclude(approved_digest="").exists()
        sent = {name: value for name, value in page.context["question"].hidden if name.startswith("digest-")}
        self.post(admin, "approve", made, confirmed="yes", **sent)
        assert ModelVersion.objects.exclude(approved_digest="").count() == 20

    def test_the_page_costs_the_same_for_any_number(
        self,
        admin: Client,
        make_version: MakeVersion,
        loaderd: LoaderStatus,
        django_assert_max_num_queries: Callable[..., Any],
    ) -> None:
        from modelhub.console.following import together_url

        for count in (2, 60):
            made = [make_version(f"m-{count}-{number}") for number in range(count)]
            operations = [
                Operation.objects.create(
                    kind="activate",
                    version=version,
                    status="succeeded",
                    finished_at=timezone.now(),
                    result={"previous": "x"},
                )
                for version in made
            ]
            address = together_url(operations)
            admin.get(address)
            with django_assert_max_num_queries(9):
                shown = admin.get(address).content.decode()
            assert f"{count} of {count} ended" in shown
