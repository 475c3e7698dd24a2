"""A model's page and its lineage's: what is true, what failed and what to do next, tabs that are fetched when shown."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from loaderd import histogram
from modelhub.console import site
from modelhub.console.model_page import lineage_look, logs
from modelhub.console.model_page.keyed import SharedByKey
from modelhub.console.model_page.lineage_look import lineage_looks
from modelhub.console.model_page.logs import MOST_BYTES, log_path, since, tail
from modelhub.console.model_page.look import looks
from modelhub.lifecycle.models import LineageChange, LoaderStatus, Operation, OperationStatus, StateChange
from modelhub.registry.choices import HealthStatus, Status
from modelhub.registry.models import Alias, Model, ModelVersion
from modelhub.telemetry.models import Alert, Comparison, Sample
from tests.console.conftest import MIB, MakeVersion, client_of

pytestmark = pytest.mark.django_db
HTMX = {"HX-Request": "true"}
TABS = ("overview", "versions", "metrics", "operations", "log", "files", "audit")


@pytest.fixture(autouse=True)
def _nobody_looked_before() -> None:
    looks.forget()
    lineage_looks.forget()


@pytest.fixture(autouse=True)
def logs_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where models' logs lie in these tests."""
    folder = tmp_path / "logs"
    (folder / "models").mkdir(parents=True)
    monkeypatch.setattr(logs, "config", lambda: SimpleNamespace(logs_dir=folder))
    return folder / "models"


def url(version: ModelVersion) -> str:
    return reverse("admin:registry_modelversion_change", args=[version.pk])


def page(client: Client, version: ModelVersion) -> str:
    response = client.get(url(version))
    assert response.status_code == 200
    return response.content.decode()


def tab(client: Client, version: ModelVersion, name: str, **asked: str) -> str:
    looks.forget()
    lineage_looks.forget()
    response = client.get(reverse("console:model-tab", args=[version.pk, name]), asked, headers=HTMX)
    assert response.status_code == 200
    return response.content.decode()


def command(name: str, version: ModelVersion) -> str:
    return reverse(f"admin:registry_modelversion_{name}", args=[version.pk])


def failed(version: ModelVersion, code: str, message: str, kind: str = "load", **facts: Any) -> Operation:
    now = timezone.now()
    return Operation.objects.create(
        kind=kind, version=version, status=OperationStatus.FAILED, finished_at=now, requested_by_name="ada",
        error={"code": code, "message": message, "facts": facts},
    )  # fmt: skip


def make_live(
    version: ModelVersion, *, ago: timedelta = timedelta(0), reason: str = "", kind: str = "activate"
) -> None:
    """As loaderd reports it."""
    before = Alias.objects.filter(lineage=version.lineage, name="live").first()
    previous = before.version if before else None
    Alias.objects.update_or_create(lineage=version.lineage, name="live", defaults={"version": version, "set_by": "ada"})
    LineageChange.objects.create(
        lineage=version.lineage, alias="live", kind=kind, version=version, previous=previous, actor="ada",
        reason=reason, at=timezone.now() - ago, details={"version_id": version.model_id},
    )  # fmt: skip


class TestTheHead:
    def test_state_health_and_actions_stand_on_top(
        self, operator: Client, loaderd: LoaderStatus, make_loaded: MakeVersion
    ) -> None:
        version = make_loaded(health_status=HealthStatus.UNHEALTHY, health_reason="12 % fail", pinned=True)
        shown = page(operator, version)
        assert ">loaded</span>" in shown
        assert "<strong>It is unhealthy.</strong> 12 % fail" in shown
        assert f'data-mh-dialog="{command("unload", version)}"' in shown
        assert f'data-mh-dialog="{command("load", version)}"' not in shown

    def test_a_healthy_model_has_no_banner(
        self, admin: Client, loaderd: LoaderStatus, make_loaded: MakeVersion
    ) -> None:
        assert (
            "mh-banner--"
            not in page(admin, make_loaded())
            .split("mh-panel-")[0]
            .replace("data-mh-silent", "")
            .split("content-main")[1]
        )

    def test_a_running_operation_with_its_phase(
        self, operator: Client, loaderd: LoaderStatus, make_version: MakeVersion
    ) -> None:
        version = make_version(status=Status.LOADING, phase="verifying")
        Operation.objects.create(
            kind="load", version=version, status=OperationStatus.RUNNING, phase="verifying", progress=0.4,
            requested_by_name="ada",
        )  # fmt: skip
        shown = page(operator, version)
        assert 'value="0.400"' in shown
        assert "asked for by ada" in shown

    def test_a_silent_loaderd_is_said_and_nothing_can_be_asked(
        self, operator: Client, loaderd: LoaderStatus, make_loaded: MakeVersion
    ) -> None:
        version = make_loaded(pid=4711)
        LoaderStatus.objects.update(observed_at=timezone.now() - timedelta(minutes=1))
        shown = page(operator, version)
        assert "loaderd is unreachable" in shown
        assert "It was last heard" in shown
        assert "4711" not in shown
        assert f'data-mh-dialog="{command("unload", version)}"' not in shown

    def test_open_alerts_of_the_model_are_told(
        self, admin: Client, loaderd: LoaderStatus, make_loaded: MakeVersion
    ) -> None:
        version, now = make_loaded(), timezone.now()
        Alert.objects.create(
            key="e", kind="error_rate", version=version, message="12 % fail.", opened_at=now, last_seen_at=now
        )
        assert "12 % fail." in page(admin, version)

    def test_the_fragment_is_sent_once_and_read_once_for_all(
        self, admin: Client, viewer: Client, loaderd: LoaderStatus, make_loaded: MakeVersion
    ) -> None:
        version = make_loaded()
        address = reverse("console:model-head", args=[version.pk])
        first = admin.get(address, headers=HTMX).content.decode()
        digest = first.split('data-mh-digest="')[1].split('"')[0]
        assert admin.get(address, {"seen": digest}, headers=HTMX).status_code == 204
        with CaptureQueriesContext(connection) as captured:
            viewer.get(address, headers=HTMX)
        assert not [query for query in captured if "registry_modelversion" in query["sql"]]

    def test_a_model_that_is_gone_is_not_found(self, admin: Client, make_version: MakeVersion) -> None:
        version = make_version()
        version.delete()
        for address in (reverse("console:model-head", args=[1]), reverse("console:model-tab", args=[1, "overview"])):
            assert admin.get(address, headers=HTMX).status_code == 404


class TestFailure:
    def test_a_process_that_died_tells_signal_log_and_next_step(
        self, operator: Client, loaderd: LoaderStatus, make_version: MakeVersion, logs_dir: Path
    ) -> None:
        version = make_version(
            status=Status.ERROR, status_cause="crashed",
            status_reason="The process of mail-v1 (pid 7) was ended by SIGSEGV; load it again.",
        )  # fmt: skip
        (logs_dir / "mail-v1.log").write_text("begin\nFatal Python error: Segmentation fault <b>\n")
        shown = page(operator, version)
        assert "Its process died" in shown
        assert "was ended by SIGSEGV" in shown
        assert '<span class="mh-tag">SIGSEGV</span>' in shown
        assert "A library crashed" in shown
        assert "Segmentation fault &lt;b&gt;" in shown
        assert re.search(rf'id="mh-next"[^>]*data-mh-dialog="{command("load", version)}"', shown)
        assert 'data-mh-open-tab="log"' in shown

    def test_a_failed_load_tells_what_its_operation_kept(
        self, operator: Client, loaderd: LoaderStatus, make_version: MakeVersion
    ) -> None:
        version = make_version(status=Status.ERROR, status_reason="short", status_changed_at=timezone.now())
        failed(version, "load_failed", "The file is cut.", log_tail="one\ntwo")
        shown = page(operator, version)
        assert "Its load failed" in shown
        assert "The file is cut." in shown
        assert "one\ntwo\n</pre>" in shown
        assert "The log below says" in shown

    @pytest.mark.parametrize(
        ("code", "fields", "leads_to"),
        [
            ("insufficient_memory", {}, "admin:registry_modelversion_optimize"),
            ("canary_failed", {"canary": {"source": "recorded"}}, "admin:registry_modelversion_forget_canary"),
            ("artifact_refused", {"artifact_format": "joblib"}, "admin:registry_modelversion_approve"),
        ],
        ids=["memory", "canary", "approval"],
    )
    def test_the_button_does_the_next_step(
        self,
        admin: Client,
        loaderd: LoaderStatus,
        make_version: MakeVersion,
        code: str,
        fields: dict[str, Any],
        leads_to: str,
    ) -> None:
        version = make_version(status=Status.ERROR, **fields)
        failed(version, code, "It failed.")
        address = reverse(leads_to, args=[] if leads_to.endswith("optimize") else [version.pk])
        failure = page(admin, version).split('id="mh-failure"')[1].split("</section>")[0]
        assert f'data-mh-dialog="{address}"' in failure

    def test_a_viewer_is_told_and_offered_no_action(
        self, viewer: Client, loaderd: LoaderStatus, make_version: MakeVersion
    ) -> None:
        version = make_version(status=Status.ERROR)
        failed(version, "insufficient_memory", "It needs 2 GiB and 1 GiB is free.")
        failure = page(viewer, version).split('id="mh-failure"')[1].split("</section>")[0]
        assert "It needs 2 GiB" in failure
        assert "data-mh-dialog" not in failure
        assert 'data-mh-open-tab="policy"' in failure

    def test_a_failed_activation_is_told_while_another_version_answers(
        self, admin: Client, loaderd: LoaderStatus, make_loaded: MakeVersion, make_version: MakeVersion
    ) -> None:
        make_live(make_loaded("v1"))
        version = make_version("v2")
        failed(version, "activation_failed", "v2 answers its canary wrongly.", kind="activate")
        shown = page(admin, version)
        assert "The last activation failed" in shown
        assert "The old version is live as before" in shown

    def test_what_was_mended_since_is_not_told_any_more(
        self, admin: Client, loaderd: LoaderStatus, make_version: MakeVersion
    ) -> None:
        version = make_version()
        failed(version, "load_failed", "The file is cut.")
        assert "The last load failed" in page(admin, version)
        Operation.objects.create(kind="load", version=version, status=OperationStatus.SUCCEEDED)
        assert "The last load failed" not in page(admin, version)
        Operation.objects.all().delete()
        failed(version, "load_failed", "The file is cut.")
        ModelVersion.objects.update(status=Status.LOADED)
        assert "The last load failed" not in page(admin, version)


class TestOverview:
    def test_what_it_costs_who_is_live_and_how_it_is_used(
        self, admin: Client, loaderd: LoaderStatus, make_loaded: MakeVersion
    ) -> None:
        live = make_loaded("v1")
        make_live(live)
        version = make_loaded(
            "v2", priority=70, keep_alive_seconds=600.0, measured_peak_bytes=50 * MIB, measured_device="cpu",
            measured_digest="a" * 64, usage_count=10, prediction_error_count=2,
        )  # fmt: skip
        shown = tab(admin, version, "overview")
        for told in ("14 MiB", "50 MiB", "priority 70 of 100", "unloaded after 600", "10, 2 failed", live.model_id):
            assert told in shown
        assert 'data-mh-age="until"' in shown, "when its keep-alive ends"

    def test_how_it_serves_and_how_its_cache_helps(
        self, admin: Client, loaderd: LoaderStatus, make_loaded: MakeVersion
    ) -> None:
        version = make_loaded("v2", instances=4, threads=2, max_queue=16, precision="int8")
        shown = tab(admin, version, "overview")
        assert "4 processes, 2 threads, in 8-bit integers" in shown
        assert "up to 64 inputs in a call, 16 predictions waiting" in shown
        assert "computed each time" in shown
        assert "mh-clear-cache" not in shown
        LoaderStatus.objects.update(facts={"limits": {"cache_enabled": True, "cache_ttl_seconds": 60.0}})
        Sample.objects.create(version=version, at=timezone.now(), seconds=10, cache_hits=9, cache_misses=1)
        looks.forget()
        shown = tab(admin, version, "overview")
        assert "kept for 60" in shown
        assert "90.0% of the predictions" in shown
        assert "mh-clear-cache" in shown
        assert "From the cache" in tab(admin, version, "metrics")
        ModelVersion.objects.filter(pk=version.pk).update(cache_enabled=False)
        looks.forget()
        assert "computed each time" in tab(admin, version, "overview")


class TestMetrics:
    def measured(self, version: ModelVersion, ages: list[int]) -> None:
        buckets = histogram.empty()
        buckets[histogram.bucket_of(0.020)] = 10
        for age in ages:
            Sample.objects.create(
                version=version, at=timezone.now() - timedelta(seconds=age), seconds=10, requests=10, errors=1,
                latency_seconds=0.2, histogram=buckets, private_bytes=30 * MIB,
            )  # fmt: skip

    def chart(self, shown: str, key: str) -> dict[str, Any]:
        found = re.search(rf'<script id="mh-chart-{key}" type="application/json">(.*?)</script>', shown)
        assert found is not None
        drawn: dict[str, Any] = json.loads(found.group(1))
        return drawn

    def test_charts_and_figures_are_those_of_the_samples(
        self, admin: Client, loaderd: LoaderStatus, make_loaded: MakeVersion
    ) -> None:
        version = make_loaded()
        self.measured(version, [60, 70])
        shown = tab(admin, version, "metrics")
        latency, memory = self.chart(shown, "latency"), self.chart(shown, "memory")
        assert [line["name"] for line in latency["series"]] == ["p50", "p95", "p99"]
        assert len(latency["labels"]) == len(latency["series"][0]["values"]) == 120
        seen = [value for value in latency["series"][0]["values"] if value is not None]
        assert seen == pytest.approx([20] * len(seen), rel=0.1)
        assert max(value or 0 for value in memory["series"][0]["values"]) == 30
        assert "10.0%" in shown, "2 of 20 failed"
        assert re.search(r'data-mh-window="1h" aria-pressed="true"', shown)

    def test_a_longer_window_reaches_further_back(
        self, admin: Client, loaderd: LoaderStatus, make_loaded: MakeVersion
    ) -> None:
        version = make_loaded()
        self.measured(version, [5 * 3600])
        assert "Nothing was measured in the last 1 hour" in tab(admin, version, "metrics")
        shown = tab(admin, version, "metrics", window="24h")
        assert any(self.chart(shown, "rate")["series"][0]["values"])
        assert re.search(r'data-mh-window="24h" aria-pressed="true"', shown)

    def test_a_window_that_nobody_knows_is_the_shortest(self, admin: Client, make_version: MakeVersion) -> None:
        assert 'data-mh-window="1h" aria-pressed="true"' in tab(admin, make_version(), "metrics", window="1000y")

    def test_it_costs_two_queries_at_any_window(
        self, admin: Client, loaderd: LoaderStatus, make_loaded: MakeVersion
    ) -> None:
        version = make_loaded()
        self.measured(version, list(range(10, 400, 10)))
        for window in ("1h", "24h", "7d"):
            with CaptureQueriesContext(connection) as captured:
                tab(admin, version, "metrics", window=window)
            assert len([query for query in captured if "telemetry_sample" in query["sql"]]) == 2


class TestLog:
    def more(self, client: Client, version: ModelVersion, at: str) -> Any:
        return client.get(reverse("console:model-log", args=[version.pk]), {"at": at}, headers=HTMX)

    def test_its_end_is_shown_and_then_new_lines_only(
        self, viewer: Client, make_version: MakeVersion, logs_dir: Path
    ) -> None:
        version, log = make_version(), logs_dir / "mail-v1.log"
        log.write_text("".join(f"line {number}\n" for number in range(300)))
        shown = tab(viewer, version, "log")
        assert "line 100\n" in shown
        assert "line 99\n" not in shown
        at = tail("mail-v1").at
        assert self.more(viewer, version, at).status_code == 204
        with log.open("a") as written:
            written.write("<b>new</b>\nhalf a li")
        answer = self.more(viewer, version, at)
        text = answer.content.decode()
        assert text.startswith("&lt;b&gt;new&lt;/b&gt;\n")
        assert "half" not in text
        assert 'hx-swap-oob="outerHTML"' in text
        assert re.fullmatch(r"&lt;b&gt;new&lt;/b&gt;\n<div[^>]*></div>", text), "no empty lines are added"
        with log.open("a") as written:
            written.write("ne\n")
        assert since("mail-v1", since("mail-v1", at).at).lines == []
        assert since("mail-v1", at).lines == ["<b>new</b>", "half a line"]

    def test_a_log_that_began_anew_is_read_from_its_beginning(
        self, viewer: Client, make_version: MakeVersion, logs_dir: Path
    ) -> None:
        version, log = make_version(), logs_dir / "mail-v1.log"
        log.write_text("old\n")
        at = tail("mail-v1").at
        log.replace(logs_dir / "mail-v1.log.1")
        log.write_text("fresh\n")
        text = self.more(viewer, version, at).content.decode()
        assert text.startswith("(the log begins anew)\nfresh\n")

    def test_much_at_once_is_cut_at_a_line(self, make_version: MakeVersion, logs_dir: Path) -> None:
        log = logs_dir / "mail-v1.log"
        log.write_text("begin\n")
        at = tail("mail-v1").at
        with log.open("a") as written:
            written.writelines(f"{number:07}\n" for number in range(MOST_BYTES // 4))
        read = since("mail-v1", at)
        assert read.is_cut
        assert all(len(line) == 7 for line in read.lines)
        assert read.lines[-1] == f"{MOST_BYTES // 4 - 1:07}"
        assert tail("mail-v1").is_cut

    def test_before_its_first_line_it_says_when_it_begins(self, viewer: Client, make_version: MakeVersion) -> None:
        version = make_version()
        assert "the log begins with the first load" in tab(viewer, version, "log")
        assert self.more(viewer, version, "").status_code == 204

    def test_it_does_not_lead_out_of_its_folder(self, logs_dir: Path, tmp_path: Path) -> None:
        (tmp_path / "secret.log").write_text("secret\n")
        (logs_dir / "link.log").symlink_to(tmp_path / "secret.log")
        for name in ("../../secret", "link", "/etc/passwd"):
            assert log_path(name) is None
            assert tail(name).lines == []
            assert since(name, "1:0").lines == []

    @pytest.mark.parametrize("at", ["x", "1:", ":5", "1:99999999999999999999", "1:-4", "1:٣"])
    def test_a_place_that_is_none_is_the_beginning(self, logs_dir: Path, at: str) -> None:
        (logs_dir / "mail-v1.log").write_text("one\n")
        assert since("mail-v1", at).lines == ["one"]


class TestOtherTabs:
    def test_operations_tell_who_why_and_what_came_of_it(self, viewer: Client, make_version: MakeVersion) -> None:
        version = make_version()
        failed(version, "load_failed", "The file is <cut>.")
        Operation.objects.create(kind="unload", version=version, reason="not needed", source="command")
        shown = tab(viewer, version, "operations")
        assert "The file is &lt;cut&gt;." in shown
        assert "not needed" in shown
        assert "by the operator" in shown
        assert tab(viewer, make_version("other"), "operations").count("<tr id=") == 0

    def test_versions_tell_who_was_live_when_and_lead_back(
        self, operator: Client, loaderd: LoaderStatus, make_loaded: MakeVersion, make_version: MakeVersion
    ) -> None:
        old, new = make_version("v1"), make_loaded("v2")
        make_live(old, ago=timedelta(hours=2), kind="first")
        make_live(new, ago=timedelta(hours=1), reason="better on short mails")
        shown = tab(operator, new, "versions")
        assert "better on short mails" in shown
        assert shown.count("mh-is-now") == 1
        assert f'data-mh-dialog="{command("activate", old)}"' in shown
        assert f'data-mh-dialog="{command("rollback", old)}"' in shown
        assert f'data-mh-dialog="{command("activate", new)}"' not in shown

    def test_files_with_their_hashes_and_what_the_format_can_do(
        self, admin: Client, viewer: Client, make_version: MakeVersion
    ) -> None:
        version = make_version(
            artifact_format="joblib", metadata={"owner": "<ada>"},
            manifest=[{"path": "model.joblib", "size_bytes": 3 * MIB, "sha256": "b" * 64}],
            signature={"inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}], "labels": ["ham"]},
        )  # fmt: skip
        shown = tab(admin, version, "files")
        for told in ("model.joblib", "3 MiB", "b" * 64, "can run code", "&lt;ada&gt;", "BYTES", "ham"):
            assert told in shown
        assert f'data-mh-dialog="{command("approve", version)}"' in shown
        assert command("approve", version) not in tab(viewer, version, "files")
        ModelVersion.objects.update(approved_digest="a" * 64)
        assert f'data-mh-dialog="{command("revoke", version)}"' in tab(admin, version, "files")

    def test_audit_has_changes_of_people_and_of_state_in_one_order(
        self, admin: Client, viewer: Client, make_version: MakeVersion
    ) -> None:
        version, now = make_version(), timezone.now()
        StateChange.objects.create(
            version=version, from_state="loading", to_state="loaded", reason="answers", actor="ada", at=now
        )
        LogEntry.objects.create(
            user=User.objects.get(username="ada"), content_type=ContentType.objects.get_for_model(ModelVersion),
            object_id=str(version.pk), object_repr="mail-v1", action_flag=CHANGE, change_message="Set priority = 80.",
            action_time=now - timedelta(hours=1),
        )  # fmt: skip
        shown = tab(admin, version, "audit")
        assert shown.index("answers") < shown.index("Set priority = 80.")
        seen_by_viewer = tab(viewer, version, "audit")
        assert "answers" in seen_by_viewer
        assert "priority" not in seen_by_viewer

    def test_audit_has_the_beginning_of_what_was_changed_and_leads_to_all_of_it(
        self, admin: Client, make_version: MakeVersion
    ) -> None:
        version = make_version()
        of_it = {
            "user": User.objects.get(username="ada"), "object_id": str(version.pk), "object_repr": "mail-v1",
            "content_type": ContentType.objects.get_for_model(ModelVersion), "action_flag": CHANGE,
        }  # fmt: skip
        texts = [
            "Edited metadata.json.\nmetadata.json before:\n" + '{"a": 1}\n' * 5000,
            "Edited config.json.\nconfig.json before:\n(there was none)",
            "w" * 400,
            '[{"changed": {"fields": ["Priority"]}}]',
        ]
        files, small, long, whole = (LogEntry.objects.create(change_message=text, **of_it) for text in texts)
        with CaptureQueriesContext(connection) as queries:
            shown = tab(admin, version, "audit")
        for told in ("Edited metadata.json.", "Edited config.json.", f"{'w' * 300}…", "Changed Priority."):
            assert f'<div class="mh-small mh-break">{told}</div>' in shown
        assert "before:" not in shown
        linked = [reverse("admin:admin_logentry_change", args=[entry.pk]) in shown for entry in (files, small, long)]
        assert linked == [True, True, True]
        assert reverse("admin:admin_logentry_change", args=[whole.pk]) not in shown
        asked = [query["sql"] for query in queries if 'FROM "django_admin_log"' in query["sql"]]
        assert len(asked) == 1
        assert 'LEFT("django_admin_log"."change_message", 301)' in asked[0]
        assert asked[0].count('"change_message"') == 1


class TestPolicy:
    def test_who_may_change_it_has_a_form_who_may_not_reads_it(
        self, admin: Client, viewer: Client, make_version: MakeVersion
    ) -> None:
        version = make_version(priority=77)
        assert re.search(
            r'<input[^>]*name="priority"[^>]*value="77"|<input[^>]*value="77"[^>]*name="priority"', page(admin, version)
        )
        seen = page(viewer, version)
        assert 'name="priority"' not in seen
        assert "77" in seen
        assert "You may see the policy and not change it" in seen

    def test_it_is_saved_without_a_script_and_leads_back_to_itself(
        self, admin: Client, make_version: MakeVersion
    ) -> None:
        version = make_version()
        form = {"priority": "80", "max_batch_size": "64", "load_timeout_seconds": "", "threads": ""}
        form |= {"instances": "1", "max_queue": "1024", "keep_alive_seconds": "", "memory_limit_mb": ""}
        response = admin.post(url(version), form)
        assert (response.status_code, response.headers["Location"]) == (302, f"{url(version)}#policy")
        version.refresh_from_db()
        assert version.priority == 80

    def test_a_wrong_value_is_told_beside_its_field_and_at_the_tab(
        self, admin: Client, make_version: MakeVersion
    ) -> None:
        version = make_version()
        form = {"priority": "101", "max_batch_size": "64", "instances": "1", "max_queue": "1024"}
        shown = admin.post(url(version), form).content.decode()
        assert "At least 0, at most 100." in shown
        assert "(1 wrong)" in shown


class TestDoors:
    def test_each_tab_is_for_who_may_see_models(self, make_version: MakeVersion) -> None:
        version = make_version()
        nobody = client_of(User.objects.create_user("nils", is_staff=True))
        for name in TABS:
            assert nobody.get(reverse("console:model-tab", args=[version.pk, name]), headers=HTMX).status_code == 403
        for name in ("head", "log"):
            assert nobody.get(reverse(f"console:model-{name}", args=[version.pk]), headers=HTMX).status_code == 403
        assert nobody.get(reverse("console:lineage", args=[version.lineage_id]), headers=HTMX).status_code == 403

    def test_a_part_that_one_may_not_see_is_kept_back(self, make_version: MakeVersion) -> None:
        version = make_version()
        user = User.objects.create_user("mia", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename="view_modelversion"))
        failed(version, "load_failed", "The file is cut.")
        make_live(version, reason="because")
        client = client_of(user)
        assert "You may not see the operations" in tab(client, version, "operations")
        assert "You may not see its history" in tab(client, version, "audit")
        assert "because" not in tab(client, version, "versions")

    def test_strangers_are_sent_to_the_login(self, client: Client, make_version: MakeVersion) -> None:
        version = make_version()
        assert "/login/" in client.get(reverse("console:model-tab", args=[version.pk, "log"]))["Location"]

    @pytest.mark.parametrize("name", TABS)
    def test_a_tab_is_a_page_of_its_own_without_a_script(
        self, admin: Client, make_version: MakeVersion, name: str
    ) -> None:
        version = make_version()
        address = reverse("console:model-tab", args=[version.pk, name])
        shown = admin.get(address).content.decode()
        assert "<html" in shown
        assert url(version) in shown
        assert "<html" not in admin.get(address, headers=HTMX).content.decode()

    def test_there_is_no_other_tab(self, admin: Client, make_version: MakeVersion) -> None:
        address = reverse("console:model-tab", args=[make_version().pk, "secrets"])
        assert admin.get(address, headers=HTMX).status_code == 404


class TestLineage:
    def page(self, client: Client, lineage: Model) -> str:
        response = client.get(reverse("admin:registry_model_change", args=[lineage.pk]))
        assert response.status_code == 200
        return response.content.decode()

    def test_a_candidate_that_is_not_loaded_gets_nothing_and_the_page_says_so(
        self, operator: Client, loaderd: LoaderStatus, make_loaded: MakeVersion, make_version: MakeVersion
    ) -> None:
        live, candidate = make_loaded("v1"), make_version("v2")
        make_live(live)
        Alias.objects.create(lineage=live.lineage, name="candidate", version=candidate, set_by="ada")
        Model.objects.update(candidate_percent=30.0, shadow=True)
        shown = self.page(operator, live.lineage)
        assert "should go to v2, but it is unloaded: nothing goes there, and live answers everything." in shown
        assert f'data-mh-dialog="{command("load", candidate)}"' in shown
        ModelVersion.objects.filter(pk=candidate.pk).update(status=Status.LOADED)
        shown = self.page(operator, live.lineage)
        assert "30 % of the requests and copies of what live answers go to v2; live answers the rest." in shown

    @pytest.mark.parametrize(
        ("percent", "shadow", "has_candidate", "told"),
        [
            (0.0, False, True, "All requests are answered by live; no candidate is tried."),
            (12.5, False, True, "12.5 % of the requests go to v2; live answers the rest."),
            (0.0, True, True, "Copies of what live answers go to v2; live answers everything."),
            (5.0, False, False, "5 % of the requests should go to a candidate, and there is none"),
        ],
        ids=["none", "split", "shadow", "no-candidate"],
    )
    def test_the_traffic_in_a_sentence(
        self,
        loaderd: LoaderStatus,
        make_loaded: MakeVersion,
        percent: float,
        shadow: bool,
        has_candidate: bool,
        told: str,
    ) -> None:
        make_live(make_loaded("v1"))
        candidate = make_loaded("v2")
        if has_candidate:
            Alias.objects.create(lineage=candidate.lineage, name="candidate", version=candidate, set_by="ada")
        Model.objects.update(candidate_percent=percent, shadow=shadow)
        assert lineage_look.make(candidate.lineage_id).traffic.startswith(told)

    def test_actions_are_dialogs_for_who_may(
        self, operator: Client, viewer: Client, loaderd: LoaderStatus, make_loaded: MakeVersion
    ) -> None:
        old, live = make_loaded("v1"), make_loaded("v2")
        make_live(old, ago=timedelta(hours=1))
        make_live(live)
        Alias.objects.create(lineage=live.lineage, name="stable", version=old, set_by="ada")
        pk = live.lineage_id
        shown = self.page(operator, live.lineage)
        for name, asked in (("rollback", ""), ("alias", ""), ("traffic", ""), ("alias-remove", "?name=stable")):
            assert f'data-mh-dialog="{reverse(f"admin:registry_model_{name}", args=[pk])}{asked}"' in shown
        assert "?name=live" not in shown
        main = self.page(viewer, live.lineage).split("content-main")[1]
        assert "v2" in main
        assert "data-mh-dialog" not in main

    def test_live_and_candidate_side_by_side(
        self, admin: Client, loaderd: LoaderStatus, make_loaded: MakeVersion
    ) -> None:
        live, candidate = make_loaded("v1"), make_loaded("v2")
        buckets = histogram.empty()
        buckets[histogram.bucket_of(0.010)] = 10
        slower = histogram.empty()
        slower[histogram.bucket_of(0.040)] = 10
        now = timezone.now()
        Comparison.objects.create(
            lineage=live.lineage, live=live, candidate=candidate, since=now, last_at=now, compared=10, disagreed=3,
            live_requests=10, live_histogram=buckets, live_latency_seconds=0.1,
            candidate_requests=10, candidate_histogram=slower, candidate_latency_seconds=0.4,
        )  # fmt: skip
        shown = self.page(admin, live.lineage)
        assert "3 of 10" in shown
        sides = lineage_look.make(live.lineage_id).sides
        assert [side.name for side in sides] == ["live", "candidate"]
        shares = {name: share for name, _, share in sides[0].bars}
        assert shares["p50"] == pytest.approx(25, rel=0.15)
        assert [share for _, _, share in sides[1].bars] == pytest.approx([100] * 4)

    def test_named_versions_stand_first_then_the_highest(
        self, loaderd: LoaderStatus, make_version: MakeVersion
    ) -> None:
        for number in ("1.9", "1.10", "1.2", "2.0"):
            make_version(f"v{number}", version=number)
        make_live(ModelVersion.objects.get(model_id="v1.2"))
        rows = lineage_look.make(Model.objects.get().pk).versions
        assert [row.version.version for row in rows] == ["1.2", "2.0", "1.10", "1.9"]

    def test_more_versions_than_are_shown_are_counted(self, loaderd: LoaderStatus, make_version: MakeVersion) -> None:
        live = make_version("oldest")
        make_live(live)
        for number in range(lineage_look.MOST_VERSIONS + 3):
            make_version(f"m{number:03}")
        look = lineage_look.make(live.lineage_id)
        assert (len(look.versions), look.more_versions) == (lineage_look.MOST_VERSIONS, 4)
        assert look.live is not None
        assert look.live.version == live

    def test_the_description_is_saved(self, admin: Client, make_version: MakeVersion) -> None:
        lineage = make_version().lineage
        address = reverse("admin:registry_model_change", args=[lineage.pk])
        assert admin.post(address, {"description": "Sorts mail.", "_continue": "yes"}).status_code == 302
        lineage.refresh_from_db()
        assert lineage.description == "Sorts mail."

    def test_the_list_says_when_nothing_can_go_to_the_candidate(
        self, admin: Client, loaderd: LoaderStatus, make_version: MakeVersion
    ) -> None:
        version = make_version()
        Alias.objects.create(lineage=version.lineage, name="candidate", version=version, set_by="ada")
        Model.objects.update(candidate_percent=10.0)
        listed = admin.get(reverse("admin:registry_model_changelist")).content.decode()
        assert "nothing goes: candidate is unloaded" in listed


class TestCost:
    def test_queries_do_not_grow_with_what_happened(
        self, admin: Client, loaderd: LoaderStatus, make_loaded: MakeVersion, make_version: MakeVersion
    ) -> None:
        version = make_loaded("first")
        lineage = version.lineage

        def happened(times: int) -> None:
            now = timezone.now()
            for number in range(times):
                other = make_version(f"v{ModelVersion.objects.count()}")
                make_live(other)
                Alias.objects.create(lineage=lineage, name=other.model_id, version=other, set_by="ada")
                failed(version, "load_failed", "x")
                StateChange.objects.create(
                    version=version, from_state="loading", to_state="loaded", actor="ada", at=now
                )
                Alert.objects.create(
                    key=other.model_id, kind="x", version=version, message="m", opened_at=now, last_seen_at=now
                )
                Sample.objects.create(version=version, at=now - timedelta(seconds=10 * number), seconds=10, requests=1)

        def queries(get: Callable[[], Any]) -> int:
            get()
            site.counts.forget()
            with CaptureQueriesContext(connection) as captured:
                get()
            return len(captured)

        def cost() -> dict[str, int]:
            lineage_page = reverse("admin:registry_model_change", args=[lineage.pk])
            return {
                "page": queries(lambda: admin.get(url(version))),
                "lineage": queries(lambda: admin.get(lineage_page)),
                **{name: queries(lambda name=name: tab(admin, version, name)) for name in TABS},
            }

        happened(1)
        few = cost()
        happened(40)
        assert cost() == few
        assert max(few.values()) < 25


class TestSharedByKey:
    def test_each_key_is_made_once_a_second_and_few_are_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("modelhub.console.model_page.keyed.MOST_KEPT", 2)
        made: list[int] = []

        def make(key: int) -> int:
            made.append(key)
            return key * 10

        shared = SharedByKey(make)
        assert [shared.get(1), shared.get(1), shared.get(2)] == [10, 10, 20]
        assert made == [1, 2]
        shared.get(3)
        shared.get(1)
        assert made == [1, 2, 3, 1], "the one that was asked for longest ago went"
        shared.forget()
        shared.get(3)
        assert made[-1] == 3
