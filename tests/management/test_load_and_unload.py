"""manage.py load and unload: what they print, and the exit status that scripts go by."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command

from loaderd.errors import LoadFailed
from modelhub.lifecycle.models import Operation
from modelhub.management import watching
from modelhub.registry.choices import Status
from tests.api.conftest import FakeLoaderd, MakeVersion


@pytest.fixture(autouse=True)
def models(make_version: MakeVersion, loaderd: FakeLoaderd) -> None:
    make_version("one")
    make_version("two")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """(exit status, standard output, standard error)"""
    status = 0
    try:
        call_command(*arguments)
    except SystemExit as end:
        status = int(end.code or 0)
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_load_tells_time_and_memory(loaderd: FakeLoaderd, capsys: pytest.CaptureFixture[str]) -> None:
    loaderd.result = {"status": "loaded", "load_seconds": 1.5, "private_bytes": 3 * 1024**2}
    assert run(capsys, "load", "one", "two", "--reason", "for the demo") == (
        0,
        "one: loaded in 1.50 s, 3 MiB\ntwo: loaded in 1.50 s, 3 MiB\n",
        "",
    )
    operation = Operation.objects.first()
    assert operation
    assert (operation.source, operation.reason, operation.requested_by) == ("command", "for the demo", None)


def test_a_load_of_a_loaded_model_does_not_pass_for_one(
    loaderd: FakeLoaderd, make_version: MakeVersion, capsys: pytest.CaptureFixture[str]
) -> None:
    held = {"private_bytes": 13 * 1024**2 + 300 * 1024, "last_load_seconds": 3.56}
    make_version("held", status=Status.LOADED, desired_state="loaded", **held)
    assert run(capsys, "load", "held") == (0, "held: is loaded already, 13.3 MiB; nothing was done\n", "")


def test_unload_tells_what_came_back(
    loaderd: FakeLoaderd, make_version: MakeVersion, capsys: pytest.CaptureFixture[str]
) -> None:
    make_version("held", status=Status.LOADED, desired_state="loaded")
    loaderd.result = {"status": "unloaded", "freed_bytes": 7 * 1024**2}
    assert run(capsys, "unload", "held", "one") == (0, "held: unloaded, 7 MiB freed\none: was not loaded\n", "")


def test_a_failure_goes_to_standard_error_and_the_others_go_on(
    loaderd: FakeLoaderd, make_version: MakeVersion, capsys: pytest.CaptureFixture[str]
) -> None:
    make_version("pickled", artifact_format="pickle")
    loaderd.result = {"status": "loaded", "load_seconds": 0.1, "private_bytes": None}
    status, out, err = run(capsys, "load", "none-such", "pickled", "one")
    assert (status, out) == (1, "one: loaded in 0.10 s, memory not measured\n")
    assert "No model and no lineage is named 'none-such'" in err
    assert "manage.py approve pickled" in err


def test_a_load_that_fails_ends_with_1(loaderd: FakeLoaderd, capsys: pytest.CaptureFixture[str]) -> None:
    loaderd.error = LoadFailed("one could not be loaded: no such class.").to_message()
    status, out, err = run(capsys, "load", "one")
    assert (status, out) == (1, "")
    assert "one could not be loaded: no such class." in err


def test_a_load_that_does_not_end_in_time_ends_with_1(
    capsys: pytest.CaptureFixture[str], make_version: MakeVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "GRACE_SECONDS", 0.0)
    make_version("slow", load_timeout_seconds=0.1)
    status, _, err = run(capsys, "load", "slow")
    assert status == 1
    assert "slow: still queued" in err


def test_async_does_not_wait(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "load", "one", "--async")
    assert (status, out) == (0, f"one: queued, operation {Operation.objects.get().id}\n")


@pytest.mark.parametrize("asked_for", [["one"], ["one", "none-such"]])
def test_json(loaderd: FakeLoaderd, capsys: pytest.CaptureFixture[str], asked_for: list[str]) -> None:
    result: dict[str, Any] = {"status": "loaded", "load_seconds": 0.1, "private_bytes": 1}
    loaderd.result = result
    status, out, _ = run(capsys, "load", *asked_for, "--json")
    outcomes = {outcome["model_id"]: outcome for outcome in json.loads(out)}
    assert set(outcomes) == set(asked_for)
    assert (outcomes["one"]["status"], outcomes["one"]["result"]) == ("succeeded", result)
    assert status == (1 if "none-such" in asked_for else 0)


class TestUser:
    def test_it_acts_as_that_user(self, capsys: pytest.CaptureFixture[str]) -> None:
        ada = User.objects.create_user("ada")
        ada.groups.add(Group.objects.get(name="operators"))
        assert run(capsys, "load", "one", "--async", "--user", "ada")[0] == 0
        assert Operation.objects.get().requested_by == ada

    def test_who_lacks_the_permission_is_refused(self, capsys: pytest.CaptureFixture[str]) -> None:
        User.objects.create_user("ada")
        status, _, err = run(capsys, "load", "one", "--user", "ada")
        assert status == 1
        assert "registry.load_modelversion" in err

    def test_an_unknown_user_is_wrong_usage(self) -> None:
        with pytest.raises(CommandError, match="No active user is named 'bob'") as refused:
            call_command("load", "one", "--user", "bob")
        assert refused.value.returncode == 2


def test_no_model_is_wrong_usage() -> None:
    with pytest.raises(CommandError, match="ID"):
        call_command("load")
