"""An operation is followed in place until its end: phases, cancel, what came of it, what to do next, the way back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from loaderd.errors import (
    ActivationFailed,
    ArtifactRefused,
    CanaryFailed,
    Cancelled,
    InsufficientMemory,
    LoaderdError,
    ModelProcessDied,
    ModelTimeout,
)
from modelhub.conf import config
from modelhub.console.advice import advice_for
from modelhub.console.following import MOST_TOGETHER, followed, together_url
from modelhub.lifecycle.models import LoaderStatus, Operation
from modelhub.lifecycle.notifications import stop_listening
from modelhub.registry.choices import Status
from modelhub.registry.models import Alias, ModelVersion
from tests.console.conftest import MIB, MakeVersion
from tests.lifecycle.fake_loaderd import FakeLoaderd

pytestmark = [pytest.mark.django_db, pytest.mark.xdist_group("control-socket")]
DIALOG = {"HX-Request": "true"}
STOP = 286


@pytest.fixture(autouse=True)
def _listening_ends_with_the_test() -> Iterator[None]:
    yield
    stop_listening()


def ask(kind: str, version: ModelVersion | None, **fields: Any) -> Operation:
    requested_at = timezone.now() - timedelta(seconds=2)
    return Operation.objects.create(
        **{"kind": kind, "version": version, "requested_by_name": "ada", "requested_at": requested_at, **fields}
    )


def ended(kind: str, version: ModelVersion | None, status: str = "succeeded", **fields: Any) -> Operation:
    now = timezone.now()
    return ask(kind, version, status=status, started_at=now - timedelta(seconds=1), finished_at=now, **fields)


def failed(kind: str, version: ModelVersion, error: LoaderdError, **fields: Any) -> Operation:
    return ended(kind, version, "failed", error=error.to_message(), **fields)


def live(client: Client, operation: Operation, **seen: str) -> Any:
    return client.get(reverse("console:operation", args=[operation.pk]), seen, headers=DIALOG)


def text(response: Any) -> str:
    return str(response.content.decode())


def url(command: str, version: ModelVersion) -> str:
    return reverse(f"admin:registry_modelversion_{command}", args=[version.pk])


def steps(shown: str) -> list[tuple[str, str]]:
    """(where it stands, phase) of each line."""
    return re.findall(r'<li class="mh-steps__([a-z-]+)"[^>]*>([^<]+)<', shown)


class TestWhileItRuns:
    def test_its_phases_stand_in_order_with_the_present_one_marked(
        self, operator: Client, make_version: MakeVersion
    ) -> None:
        operation = ask("activate", make_version(), status="running", phase="loading", progress=0.25)
        operation.started_at = timezone.now()
        operation.save()
        shown = text(live(operator, operation))
        assert [stands for stands, _ in steps(shown)] == ["done"] * 3 + ["now"] + ["to-come"] * 3
        assert ("now", "reads the model") in steps(shown)
        assert 'value="0.250"' in shown
        assert "running" in shown
        assert "asked for by ada" in shown
        assert 'data-mh-age="for"' in shown

    def test_before_it_is_taken_nothing_is_done(self, operator: Client, make_version: MakeVersion) -> None:
        shown = text(live(operator, ask("load", make_version())))
        assert {stands for stands, _ in steps(shown)} == {"to-come"}
        assert "queued" in shown
        assert "value=" not in shown.split("<progress")[1].split(">")[0], "nobody knows how far it is"

    @pytest.mark.parametrize("kind", ["unload", "optimize"])
    def test_what_has_no_phases_says_what_it_does(self, operator: Client, make_version: MakeVersion, kind: str) -> None:
        operation = ask(kind, make_version() if kind == "unload" else None)
        assert "Waits to be taken." in text(live(operator, operation))
        Operation.objects.update(status="running", started_at=timezone.now())
        assert "Requests in flight are finished" in text(live(operator, operation))

    def test_what_the_page_shows_already_is_not_sent_again(self, operator: Client, make_version: MakeVersion) -> None:
        operation = ask("load", make_version())
        first = live(operator, operation)
        digest = re.search(r'data-mh-digest="(\w+)"', text(first))
        assert digest is not None
        assert live(operator, operation, seen=digest[1]).status_code == 204
        Operation.objects.update(status="running", phase="loading", started_at=timezone.now())
        assert live(operator, operation, seen=digest[1]).status_code == 200
        assert "no-store" in first.headers["Cache-Control"]

    def test_it_costs_the_same_at_every_look(
        self, operator: Client, make_version: MakeVersion, django_assert_num_queries: Any
    ) -> None:
        operation = ask("load", make_version())
        live(operator, operation)
        with django_assert_num_queries(5):  # session, user, two of permissions, the operation
            live(operator, operation)

    def test_the_dialog_can_be_opened_again(self, operator: Client, make_version: MakeVersion) -> None:
        operation = ask("load", make_version())
        address = reverse("console:operation-follow", args=[operation.pk])
        shown = text(operator.get(address, headers=DIALOG))
        assert "Load of mail-v1" in shown
        assert "every 500ms" in shown
        page = operator.get(address)
        assert page["Location"] == reverse("admin:lifecycle_operation_change", args=[operation.pk])
        Operation.objects.update(status="succeeded", finished_at=timezone.now())
        over = text(operator.get(address, headers=DIALOG))
        assert "every 500ms" not in over
        assert 'hx-trigger="mh:seen"' in over  # none at all would ask at each click


class TestCancel:
    @pytest.fixture
    def daemon(self, loaderd: LoaderStatus) -> Iterator[FakeLoaderd]:
        LoaderStatus.objects.update(observed_at=timezone.now() + timedelta(hours=1))
        fake = FakeLoaderd(config().control_socket)
        yield fake
        fake.close()

    def cancel(self, client: Client, operation: Operation, **more: Any) -> Any:
        return client.post(reverse("console:operation-cancel", args=[operation.pk]), **more)

    def test_what_waits_is_cancelled_at_once(self, operator: Client, make_version: MakeVersion) -> None:
        operation = ask("load", make_version())
        assert reverse("console:operation-cancel", args=[operation.pk]) in text(live(operator, operation))
        response = self.cancel(operator, operation, headers=DIALOG)
        assert response.headers["HX-Trigger"] == "mh:changed"
        assert "was cancelled before it began" in text(response)
        assert "Everything is as it was before." in text(response)
        assert url("load", ModelVersion.objects.get()) in text(response), "to try again"
        assert live(operator, operation).status_code == STOP

    def test_what_loaderd_finishes_is_told(
        self, operator: Client, daemon: FakeLoaderd, make_version: MakeVersion
    ) -> None:
        daemon.refuse_with = LoaderdError("It is ending <now>.")
        operation = ask("load", make_version(), status="running", started_at=timezone.now())
        response = self.cancel(operator, operation, headers=DIALOG)
        assert response.status_code == 409
        assert "It is ending &lt;now&gt;." in text(response)
        assert daemon.received[-1]["command"] == "cancel"

    @pytest.mark.parametrize("kind", ["unload", "optimize"])
    def test_what_cannot_be_stopped_has_no_button(self, operator: Client, make_version: MakeVersion, kind: str) -> None:
        version = make_version() if kind == "unload" else None
        operation = ask(kind, version, status="running", started_at=timezone.now())
        address = reverse("console:operation-cancel", args=[operation.pk])
        assert address not in text(live(operator, operation))
        assert "has begun" in text(self.cancel(operator, operation, headers=DIALOG))

    def test_without_a_script_it_leads_to_the_operation(self, operator: Client, make_version: MakeVersion) -> None:
        operation = ended("load", make_version())
        response = self.cancel(operator, operation)
        assert response["Location"] == reverse("admin:lifecycle_operation_change", args=[operation.pk])

    def test_a_viewer_sees_no_button_and_cannot_forge_it(self, viewer: Client, make_version: MakeVersion) -> None:
        operation = ask("load", make_version())
        address = reverse("console:operation-cancel", args=[operation.pk])
        assert address not in text(live(viewer, operation))
        response = viewer.post(address, headers=DIALOG)
        assert response.status_code == 403
        assert "may not load models" in text(response)
        operation.refresh_from_db()
        assert operation.status == "queued"
        assert viewer.get(address).status_code == 405


class TestItsEnd:
    def test_polling_stops_and_the_page_under_it_hears_of_it(self, operator: Client, make_version: MakeVersion) -> None:
        response = live(operator, ended("load", make_version()), seen="whatever")
        assert response.status_code == STOP
        assert response.headers["HX-Trigger"] == "mh:changed"
        assert "hx-get" not in text(response)

    @pytest.mark.parametrize(
        ("kind", "result", "told"),
        [
            ("load", {"load_seconds": 1.5, "private_bytes": 14 * MIB}, "Loaded in 1.50 s; it holds 14 MiB."),
            ("load", {"load_seconds": 1.5, "private_bytes": MIB, "gpu_bytes": 3 * MIB}, "and 3 MiB of GPU memory"),
            ("unload", {"status": "unloaded", "freed_bytes": 12 * MIB}, "Unloaded; 12 MiB came back."),
            ("unload", {"status": "not_loaded"}, "there was nothing to unload"),
            ("activate", {"previous": None}, "It is live."),
            ("activate", {"previous": "mail-v0", "load_seconds": 0.2}, "It is live in place of mail-v0."),
            ("rollback", {"previous": "mail-v0", "freed_bytes": MIB}, "mail-v0 was unloaded; 1 MiB came back."),
            ("activate", {"previous": "mail-v0", "gap_seconds": 2.0}, "Nobody answered for 2.00 s."),
        ],
    )
    def test_what_came_of_it_is_told_as_measured(
        self, operator: Client, make_version: MakeVersion, kind: str, result: dict[str, Any], told: str
    ) -> None:
        shown = text(live(operator, ended(kind, make_version(), result=result)))
        assert told in shown
        assert "succeeded" in shown
        assert steps(shown) == [], "which of them it needed is not known"

    def test_an_optimisation_lists_whom_it_unloaded(self, operator: Client) -> None:
        unloaded = [{"model_id": "old-v1", "reason": "idle 30 h"}]
        shown = text(live(operator, ended("optimize", None, result={"freed_bytes": MIB, "unloaded": unloaded})))
        assert "1 MiB came back from 1 model." in shown
        assert "old-v1: idle 30 h" in shown
        shown = text(live(operator, ended("optimize", None, result={"freed_bytes": 0, "unloaded": []})))
        assert "nothing was unloaded" in shown

    @pytest.mark.parametrize(("kind", "told"), [("load", "It was loaded already"), ("activate", "It was live already")])
    def test_what_was_so_already_has_no_way_back(
        self, operator: Client, make_loaded: MakeVersion, kind: str, told: str
    ) -> None:
        now, version = timezone.now(), make_loaded()
        operation = ask(
            kind, version, status="succeeded", requested_at=now, finished_at=now, result={"load_seconds": 3.0}
        )
        shown = text(live(operator, operation))
        assert told in shown
        assert "Undo" not in shown


class TestTheWayBack:
    def ways(self, client: Client, operation: Operation) -> dict[str, str]:
        shown = text(live(client, operation))
        return {title: address for address, title in re.findall(r'href="([^"]+)"[^>]*>([^<]+)</a>', shown)}

    def test_a_load_is_undone_by_an_unload_while_it_is_loaded(
        self, operator: Client, viewer: Client, make_loaded: MakeVersion
    ) -> None:
        version = make_loaded()
        operation = ended("load", version, result={})
        assert self.ways(operator, operation)["Undo: unload"] == url("unload", version)
        assert set(self.ways(viewer, operation)) == {"The model&#x27;s page"}
        ModelVersion.objects.update(status=Status.UNLOADED)
        assert "Undo: unload" not in self.ways(operator, operation)

    def test_an_unload_is_undone_by_a_load(self, operator: Client, make_version: MakeVersion) -> None:
        version = make_version()
        operation = ended("unload", version, result={"status": "unloaded"})
        assert self.ways(operator, operation)["Undo: load again"] == url("load", version)
        nothing = ended("unload", version, result={"status": "not_loaded"})
        assert "Undo: load again" not in self.ways(operator, nothing)

    @pytest.mark.parametrize(
        ("kind", "title", "command"),
        [("activate", "Undo: roll back to mail-v1", "rollback"), ("rollback", "Undo: activate mail-v1", "activate")],
    )
    def test_a_switch_is_undone_by_the_version_before_while_it_is_live(
        self, operator: Client, make_version: MakeVersion, make_loaded: MakeVersion, kind: str, title: str, command: str
    ) -> None:
        before, version = make_version("mail-v1"), make_loaded("mail-v2")
        operation = ended(kind, version, result={"previous": "mail-v1"})
        assert title not in self.ways(operator, operation), "somebody else is live by now"
        Alias.objects.create(lineage=version.lineage, name="live", version=version, set_by="ada")
        assert self.ways(operator, operation)[title] == url(command, before)
        ModelVersion.objects.filter(pk=before.pk).update(missing_since=timezone.now())
        assert title not in self.ways(operator, operation)


class TestFailures:
    def test_a_process_that_died_is_told_with_signal_log_and_next_step(
        self, operator: Client, make_version: MakeVersion
    ) -> None:
        error = ModelProcessDied(
            "The process of mail-v1 (pid 7) was killed.", exit_signal=11, pid=7, log_tail="first\nSegmentation <fault>"
        )
        version = make_version()
        shown = text(live(operator, failed("load", version, error, phase="warming_up")))
        assert "The process of mail-v1 (pid 7) was killed." in shown
        assert "SIGSEGV (11)" in shown
        assert "Segmentation &lt;fault&gt;" in shown
        assert "A library crashed" in shown
        assert ("failed", "warms up") in steps(shown)
        assert url("load", version) in shown, "to try again"

    @pytest.mark.parametrize(
        ("error", "fields", "command"),
        [
            (ArtifactRefused("x"), {"artifact_format": "pickle"}, "approve"),
            (CanaryFailed("x"), {}, "forget_canary"),
        ],
        ids=["approve", "canary"],
    )
    def test_what_removes_the_cause_is_one_click_away(
        self, admin: Client, make_version: MakeVersion, error: LoaderdError, fields: dict[str, Any], command: str
    ) -> None:
        version = make_version(**fields)
        assert url(command, version) in text(live(admin, failed("load", version, error)))

    def test_want_of_memory_leads_to_the_optimisation_for_who_may(
        self, operator: Client, viewer: Client, make_version: MakeVersion
    ) -> None:
        operation = failed("load", make_version(), InsufficientMemory("It needs 9 GiB."))
        optimise = reverse("admin:registry_modelversion_optimize")
        assert optimise in text(live(operator, operation))
        assert optimise not in text(live(viewer, operation))

    def test_every_code_of_a_failure_that_people_meet_has_a_next_step(self) -> None:
        for error in (ActivationFailed("x"), ModelTimeout("x"), CanaryFailed("x"), InsufficientMemory("x")):
            assert advice_for(error.to_message())
        assert "want of memory" in advice_for(ModelProcessDied("x", out_of_memory=True, exit_signal=9).to_message())
        assert "hung" in advice_for(ModelProcessDied("x", hung=True, exit_signal=9).to_message())
        assert advice_for({"code": "new_code", "facts": {"exit_signal": 64}}) == ""

    def test_a_cancelled_one_is_no_failure(self, operator: Client, make_version: MakeVersion) -> None:
        error = Cancelled("The load of mail-v1 was cancelled.").to_message()
        shown = text(live(operator, ended("load", make_version(), "cancelled", error=error, phase="loading")))
        assert ("stopped", "reads the model") in steps(shown)
        assert "mh-banner--warn" in shown
        assert "Next:" not in shown


class TestTogether:
    def test_it_follows_all_until_the_last_has_ended(self, operator: Client, make_version: MakeVersion) -> None:
        first, second = (ask("load", make_version(f"mail-v{number}")) for number in (1, 2))
        address = together_url([first, second, first])
        page = text(operator.get(address))
        assert "0 of 2 ended" in page
        assert "every 1s" in page
        query = address.partition("?")[2]
        running = f"{reverse('console:together-live')}?{query}"
        assert running.replace("&", "&amp;") in page
        response = operator.get(running, headers=DIALOG)
        digest = re.search(r'data-mh-digest="(\w+)"', text(response))
        assert digest is not None
        assert operator.get(f"{running}&seen={digest[1]}", headers=DIALOG).status_code == 204
        Operation.objects.filter(pk=first.pk).update(status="succeeded", finished_at=timezone.now(), result={})
        error = InsufficientMemory("It needs 9 GiB.").to_message()
        Operation.objects.filter(pk=second.pk).update(status="failed", finished_at=timezone.now(), error=error)
        response = operator.get(running, headers=DIALOG)
        assert response.status_code == STOP
        assert "2 of 2 ended" in text(response)
        assert "It needs 9 GiB." in text(response)
        assert reverse("console:operation-follow", args=[second.pk]) in text(response)
        assert 'hx-trigger="mh:seen"' in text(operator.get(address)).split("data-mh-live")[-1].split(">")[0]

    def test_an_address_that_was_damaged_shows_what_is_left(self, operator: Client, make_version: MakeVersion) -> None:
        operation = ask("load", make_version())
        good = together_url([operation]).partition("ids=")[2].partition("&")[0]
        for ids in (f"!!.{good}.AAAA", f"{good}.", good):
            shown = text(operator.get(reverse("console:together"), {"ids": ids, "of": "x"}))
            assert "0 of 1 ended" in shown
        assert "None of these operations is there any more." in text(operator.get(reverse("console:together")))

    def test_its_address_stays_short(self, make_version: MakeVersion) -> None:
        version = make_version()
        address = together_url(Operation(kind="load", version=version) for _ in range(MOST_TOGETHER + 20))
        assert len(address) < 4000
        assert address.endswith(f"of={MOST_TOGETHER + 20}")


def test_nothing_of_it_is_shown_to_who_may_not_see_operations(make_version: MakeVersion, viewer: Client) -> None:
    from django.contrib.auth.models import Group

    operation = ask("load", make_version())
    Group.objects.get(name="viewers").permissions.filter(codename="view_operation").delete()
    for name, arguments in (
        *((name, [operation.pk]) for name in ("operation", "operation-follow")),
        ("together", []),
        ("together-live", []),
    ):
        assert viewer.get(reverse(f"console:{name}", args=arguments), headers=DIALOG).status_code == 403
    assert viewer.post(reverse("console:operation-cancel", args=[operation.pk])).status_code == 403


def test_an_operation_under_way_costs_no_query_for_its_ways(
    make_version: MakeVersion, django_assert_num_queries: Any
) -> None:
    from django.contrib.auth.models import User

    operation, root = ask("activate", make_version()), User.objects.create_superuser("root")
    with django_assert_num_queries(0):
        assert followed(operation, root).may_cancel
