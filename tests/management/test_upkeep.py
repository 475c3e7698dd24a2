"""manage.py optimize, policy and alerts."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.utils import timezone

from modelhub.conf import config
from modelhub.lifecycle import settings
from modelhub.lifecycle.models import LoaderStatus, Operation
from modelhub.management.commands import policy
from modelhub.policy.effective import effective
from modelhub.policy.models import OVERRIDABLE, PolicyChange
from modelhub.registry.models import ModelVersion
from modelhub.telemetry.models import Alert
from tests.api.conftest import ControlSocket, FakeLoaderd, MakeVersion
from tests.management.conftest import Run

MIB = 1024**2


class TestOptimize:
    def test_it_tells_what_came_back_and_why(self, loaderd: FakeLoaderd, run: Run) -> None:
        unloaded = {"model_id": "a", "promised_bytes": 9 * MIB, "freed_bytes": 8 * MIB, "reason": "not asked for 26 h"}
        loaderd.result = {"unloaded": [unloaded], "promised_bytes": 9 * MIB, "freed_bytes": 8 * MIB}
        assert run("optimize", "--reason", "night") == (
            0,
            "a: unloaded, 8 MiB freed; not asked for 26 h\nTogether 8 MiB freed, 9 MiB expected.\n",
            "",
        )
        operation = Operation.objects.get()
        assert (operation.kind, operation.version, operation.reason) == ("optimize", None, "night")

    def test_nothing_to_do_is_said(self, loaderd: FakeLoaderd, run: Run) -> None:
        loaderd.result = {"unloaded": [], "promised_bytes": 0, "freed_bytes": 0}
        assert run("optimize") == (0, "Nothing to unload.\n", "")

    def test_a_user_needs_the_permission(self, loaderd: FakeLoaderd, run: Run) -> None:
        User.objects.create_user("ada")
        status, _, err = run("optimize", "--user", "ada")
        assert status == 1
        assert "registry.unload_modelversion" in err


class TestForgetCanary:
    CANARY = {"source": "recorded", "inputs": ["x"], "outputs": {"label": [1]}}

    @pytest.fixture(autouse=True)
    def version(self, make_version: MakeVersion) -> ModelVersion:
        return make_version("mail-v1", canary=self.CANARY, canary_digest="a" * 64)

    def test_it_is_forgotten_by_the_operator(self, run: Run, version: ModelVersion) -> None:
        told = "mail-v1: canary forgotten; the next load records a new one\n"
        assert run("forget_canary", "mail-v1", "--reason", "sklearn 2") == (0, told, "")
        version.refresh_from_db()
        assert version.canary is None
        change = version.state_changes.get()
        assert (change.actor, change.reason) == ("operator", "the recorded canary was forgotten: sklearn 2")

    def test_json_tells_what_it_was(self, run: Run) -> None:
        told = json.loads(run("forget_canary", "mail-v1", "--json")[1])
        assert told == {"model_id": "mail-v1", "digest": "a" * 64, "canary": self.CANARY}

    def test_a_refusal_is_status_1(self, run: Run) -> None:
        run("forget_canary", "mail-v1")
        User.objects.create_user("ada")
        for arguments, why in ((["mail-v1"], "No canary is recorded"), (["ghost"], "No model has the id 'ghost'")):
            with pytest.raises(CommandError, match=why) as refused:
                call_command("forget_canary", *arguments)
            assert refused.value.returncode == 1
        with pytest.raises(CommandError, match=r"registry\.change_modelversion"):
            call_command("forget_canary", "mail-v1", "--user", "ada")


class TestClearCache:
    @pytest.fixture(autouse=True)
    def version(self, make_version: MakeVersion) -> ModelVersion:
        return make_version("mail-v1")

    def test_of_a_model_or_of_all(self, run: Run, planner: ControlSocket) -> None:
        planner.forgotten = 4
        assert run("clear_cache", "mail-v1") == (0, "mail-v1: 4 kept answers forgotten\n", "")
        assert run("clear_cache", "--all") == (0, "all models: 4 kept answers forgotten\n", "")
        assert json.loads(run("clear_cache", "--all", "--json")[1]) == {"model_id": None, "forgotten": 4}
        assert [asked["model_id"] for asked in planner.received] == ["mail-v1", None, None]

    def test_a_refusal_is_status_1_and_neither_or_both_is_2(self, run: Run, planner: ControlSocket) -> None:
        User.objects.create_user("ada")
        for status, arguments in ((2, []), (2, ["mail-v1", "--all"]), (1, ["ghost"]), (1, ["--all", "--user", "ada"])):
            with pytest.raises(CommandError) as refused:
                call_command("clear_cache", *arguments)
            assert refused.value.returncode == status
        assert not planner.received


@pytest.mark.django_db
class TestPolicy:
    def test_all_are_shown(self, run: Run) -> None:
        status, out, _ = run("policy")
        assert status == 0
        assert [line.split()[0] for line in out.splitlines()[1:-1]] == list(OVERRIDABLE)
        assert "loaderd has never run" in out.splitlines()[-1]

    def test_one_is_set_and_taken_back(self, run: Run) -> None:
        environment = config().MAX_MEMORY_USAGE_MB
        (setting,) = json.loads(run("policy", "MAX_MEMORY_USAGE_MB=600", "--json")[1])
        assert (setting["value"], setting["environment"], setting["override"]) == (600, environment, 600)
        assert effective().MAX_MEMORY_USAGE_MB == 600
        out = run("policy", "max_memory_usage_mb=")[1]
        source = "environment" if "MAX_MEMORY_USAGE_MB" in settings.own_environment() else "default"
        assert out.splitlines()[1].split() == ["MAX_MEMORY_USAGE_MB", str(environment), source, str(environment)]
        assert [change.actor for change in PolicyChange.objects.all()] == ["operator", "operator"]

    def test_what_loaderd_works_by_is_in_force_and_not_this_commands_environment(
        self, run: Run, loaderd_is_heard: LoaderStatus, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own = config().model_copy(update={"MAX_MEMORY_USAGE_MB": 1234})
        assert "MAX_MEMORY_USAGE_MB" in own.model_fields_set
        monkeypatch.setattr(settings, "config", lambda: own)
        limits = {"max_memory_bytes": 4096 * MIB, "unused_timeout_seconds": 24 * 3600.0, "hang_seconds": 7.0}
        LoaderStatus.objects.update(facts={"environment": {"HANG_SECONDS": 7.0}, "limits": limits})
        status, out, err = run("policy")
        rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
        assert rows["MAX_MEMORY_USAGE_MB"] == ["4096", "default", "4096"]
        assert rows["HANG_SECONDS"] == ["7.0", "environment", "7.0"]
        assert rows["UNUSED_MODEL_TIMEOUT_HOURS"] == ["24", "default", "24"]
        assert f"In force as loaderd told at {loaderd_is_heard.observed_at:%Y-%m-%d %H:%M:%S} UTC." in out
        assert "MODEL_TIMEOUT_SECONDS" in out.splitlines()[-1]  # no rule of loaderd's
        assert "MAX_MEMORY_USAGE_MB=1234" in err
        assert status == 0

    def test_a_change_that_loaderd_does_not_follow_yet_is_told_as_such(
        self, run: Run, loaderd_is_heard: LoaderStatus, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(policy, "FOLLOW_SECONDS", 0.05)
        monkeypatch.setattr(policy, "LOOK_SECONDS", 0.01)
        LoaderStatus.objects.update(facts={"environment": {}, "limits": {"max_memory_bytes": 4096 * MIB}})
        row = run("policy", "MAX_MEMORY_USAGE_MB=600")[1].splitlines()[1]
        assert row.split() == ["MAX_MEMORY_USAGE_MB", *["4096,", "not", "yet", "600"], "policy", "4096", "600"]

    def test_a_change_is_shown_when_loaderd_works_by_it(
        self, run: Run, loaderd_is_heard: LoaderStatus, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        LoaderStatus.objects.update(facts={"environment": {}, "limits": {"max_memory_bytes": 4096 * MIB}})
        looks: list[float] = []

        def follow(seconds: float) -> None:
            looks.append(seconds)
            LoaderStatus.objects.update(facts={"environment": {}, "limits": {"max_memory_bytes": 600 * MIB}})

        monkeypatch.setattr(policy, "time", SimpleNamespace(monotonic=time.monotonic, sleep=follow))
        (setting,) = json.loads(run("policy", "MAX_MEMORY_USAGE_MB=600", "--json")[1])
        assert (setting["observed"], looks) == (600, [policy.LOOK_SECONDS])

    def test_of_a_loaderd_that_is_away_the_last_word_is_told(self, run: Run, loaderd_is_heard: LoaderStatus) -> None:
        LoaderStatus.objects.update(stopped_at=loaderd_is_heard.observed_at)
        assert "loaderd is away (it was stopped at" in run("policy")[1]

    @pytest.mark.parametrize(("typed", "meant"), [("true", True), ("False", False), ("1", True), ("off", False)])
    def test_a_switch_is_typed_as_in_the_environment(self, run: Run, typed: str, meant: bool) -> None:
        run("policy", f"CACHE_ENABLED={typed}")
        assert effective().CACHE_ENABLED is meant
        run("policy", "CACHE_ENABLED=")
        assert effective().CACHE_ENABLED is config().CACHE_ENABLED

    @pytest.mark.parametrize(
        ("argument", "status"),
        [
            ("CACHE_ENABLED=perhaps", 1),
            ("SAMPLING_RATE=2", 1),
            ("SAMPLING_RATE=x", 1),
            ("SAMPLING_RATE", 2),
            ("WEB_PORT=1", 2),
        ],
    )
    def test_what_is_wrong_is_said_in_a_line(self, argument: str, status: int) -> None:
        with pytest.raises(CommandError, match=argument.partition("=")[0]) as refused:
            call_command("policy", argument)
        assert refused.value.returncode == status
        assert not PolicyChange.objects.exists()

    def test_a_user_needs_the_permission(self) -> None:
        User.objects.create_user("ada")
        with pytest.raises(CommandError, match=r"policy\.change_policy"):
            call_command("policy", "SAMPLING_RATE=0.5", "--user", "ada")


class TestAlerts:
    def test_open_ones_are_listed_and_acknowledged(self, run: Run, open_alert: Alert) -> None:
        assert run("alerts")[1].splitlines()[1].split()[:3] == [str(open_alert.pk), "open", "memory"]
        (told,) = json.loads(run("alerts", "--ack", str(open_alert.pk), "--json")[1])
        assert (told["state"], told["acknowledged_by"], told["message"]) == ("acknowledged", "operator", "Full.")

    def test_resolved_ones_are_listed_with_all(self, run: Run, open_alert: Alert) -> None:
        Alert.objects.update(resolved_at=timezone.now())
        assert run("alerts") == (0, "No open alerts.\n", "")
        assert "resolved" in run("alerts", "--all")[1]
        with pytest.raises(CommandError, match="is resolved") as refused:
            call_command("alerts", "--ack", str(open_alert.pk))
        assert refused.value.returncode == 1

    @pytest.mark.django_db
    def test_an_unknown_one_ends_with_1(self) -> None:
        with pytest.raises(CommandError, match="No alert has the id 7"):
            call_command("alerts", "--ack", "7")
