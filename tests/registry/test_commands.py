"""manage.py discover, models and approve: what they print and how they exit."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import CommandError

from modelhub.conf import config
from modelhub.registry.choices import Status
from modelhub.registry.models import DiscoveryRun, ModelVersion
from tests.registry.conftest import Store

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> tuple[int, str]:
    """(exit status, standard output)"""
    output = io.StringIO()
    try:
        call_command(*arguments, stdout=output, stderr=io.StringIO())
    except SystemExit as end:
        return int(end.code or 0), output.getvalue()
    except CommandError as error:
        return error.returncode, str(error)
    return 0, output.getvalue()


class TestDiscover:
    def test_it_tells_what_it_found(self, store: Store) -> None:
        store.add("topic/mail-v1")
        status, output = run("discover")
        assert status == 0
        assert "new  mail-v1" in output
        assert output.endswith("Discovery: 1 new.\n")
        assert run("discover") == (0, "Discovery: 1 unchanged.\n")
        assert DiscoveryRun.objects.first().actor == "operator"

    def test_something_refused_is_status_1(self, store: Store) -> None:
        store.add("topic/mail-v1")
        store.add("topic/bad[red]-v1", metadata="{")
        status, output = run("discover", "--actor", "nightly")
        assert status == 1
        assert "topic/bad[red]-v1" in output
        assert "metadata.json is not JSON" in output
        assert DiscoveryRun.objects.get().actor == "nightly"

    def test_json_is_the_report(self, store: Store) -> None:
        store.add("topic/bad-v1", metadata="{")
        status, output = run("discover", "--json")
        report = json.loads(output)
        assert status == 1
        assert report["refused"][0]["path"] == "topic/bad-v1"
        assert report["counts"]["refused"] == 1

    def test_a_missing_store_is_status_2(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(config(), "MODELS_DIR", store.root / "nowhere")
        status, output = run("discover")
        assert status == 2
        assert "create it or set MODELS_DIR" in output


@pytest.fixture
def some(store: Store) -> Store:
    store.add("topic/mail-v1", {"model.pkl": b"x" * 2048}, {"performance_metrics": {"accuracy": 0.9}})
    store.add("intent/wish-v2.0", {"model.keras": b"k"})
    run("discover")
    return store


class TestModels:
    def test_the_list_is_a_table(self, some: Store) -> None:
        status, output = run("models")
        head, first, second = output.splitlines()
        assert status == 0
        assert head.split()[:5] == ["model", "status", "type", "framework", "version"]
        assert first.split() == ["mail-v1", "unloaded", "topic", "sklearn", "1", "2", "KiB", "0", "needs", "approval"]
        assert second.split()[:5] == ["wish-v2.0", "unloaded", "intent", "tensorflow", "2.0"]

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ([], ["mail-v1", "wish-v2.0"]),
            (["--type", "topic"], ["mail-v1"]),
            (["--framework", "tensorflow"], ["wish-v2.0"]),
            (["--status", "unreachable"], ["wish-v2.0"]),
            (["--status", "loaded"], []),
            (["--type", "topic", "--framework", "tensorflow"], []),
        ],
    )
    def test_it_filters_by_what_is_true_now(self, some: Store, arguments: list[str], expected: list[str]) -> None:
        ModelVersion.objects.filter(model_id="wish-v2.0").update(status=Status.LOADED)  # no loaderd is heard
        _, output = run("models", *arguments, "--json")
        assert [model["model_id"] for model in json.loads(output)] == expected

    def test_a_silent_loaderd_shows_no_stale_measurements(self, some: Store) -> None:
        ModelVersion.objects.filter(model_id="mail-v1").update(status=Status.LOADED, private_bytes=256 << 20, pid=4711)
        assert "256.0" not in run("models")[1].replace("\xa0", " ")
        facts = json.loads(run("models", "show", "mail-v1", "--json")[1])
        assert (facts["status"], facts["private_bytes"], facts["pid"]) == ("unreachable", None, None)

    def test_an_empty_registry_says_what_to_do(self, db: None) -> None:
        assert "manage.py discover" in run("models")[1]

    def test_show_tells_all_of_one(self, some: Store) -> None:
        status, output = run("models", "show", "mail-v1")
        assert status == 0
        assert "model.pkl  2 KiB" in output
        assert "{'accuracy': 0.9}" in output
        facts = json.loads(run("models", "show", "mail-v1", "--json")[1])
        assert facts["needs_approval"] is True
        assert facts["digest"] == ModelVersion.objects.get(model_id="mail-v1").digest
        assert [file["path"] for file in facts["files"]] == ["metadata.json", "model.pkl"]

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [(["show", "nothing"], 1), (["show"], 2), (["list", "mail-v1"], 2)],
    )
    def test_wrong_usage_and_unknown_ids(self, some: Store, arguments: list[str], expected: int) -> None:
        assert run("models", *arguments)[0] == expected


class TestApprove:
    def test_the_operator_approves_and_takes_back(self, some: Store) -> None:
        status, output = run("approve", "mail-v1")
        version = ModelVersion.objects.get(model_id="mail-v1")
        assert status == 0
        assert version.is_approved
        assert version.digest in output
        assert run("approve", "mail-v1", "--revoke")[0] == 0
        assert not ModelVersion.objects.get(model_id="mail-v1").is_approved

    def test_a_user_needs_the_permission(self, some: Store) -> None:
        users: Any = get_user_model().objects
        users.create_user("reader")
        admin = users.create_superuser("admin")
        status, output = run("approve", "mail-v1", "--user", "reader")
        assert (status, "reader may not approve" in output) == (1, True)
        assert run("approve", "mail-v1", "--user", "nobody")[0] == 2
        assert run("approve", "mail-v1", "--user", "admin")[0] == 0
        assert ModelVersion.objects.get(model_id="mail-v1").approved_by == admin

    def test_json_is_the_approval(self, some: Store) -> None:
        users: Any = get_user_model().objects
        users.create_superuser("admin")
        approved = json.loads(run("approve", "mail-v1", "--user", "admin", "--json")[1])
        assert approved.pop("approved_at")
        digest = ModelVersion.objects.get(model_id="mail-v1").digest
        assert approved == {"model_id": "mail-v1", "approved": True, "digest": digest, "approved_by": "admin"}
        assert json.loads(run("approve", "mail-v1", "--revoke", "--json")[1])["approved"] is False

    def test_another_digest_or_model_is_refused(self, some: Store) -> None:
        assert run("approve", "mail-v1", "--digest", "0" * 64)[0] == 1
        assert run("approve", "nothing")[0] == 1
