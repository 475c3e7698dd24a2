"""manage.py activate, rollback, versions, alias and traffic."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from loaderd.errors import CanaryFailed
from loaderd.reporter import Comparison
from modelhub.lifecycle.models import LineageChange, Operation
from modelhub.registry.models import Model, ModelVersion
from modelhub.telemetry.recording import record_comparisons
from tests.api.conftest import FakeLoaderd
from tests.management.conftest import Run

pytestmark = pytest.mark.usefixtures("lineage")

LIVE = {"model_id": "sentiment-v1", "status": "live", "previous": "sentiment-v2", "load_seconds": 0.2}


@pytest.fixture
def first_live(lineage: Model) -> ModelVersion:
    version = lineage.versions.get(model_id="sentiment-v1")
    LineageChange.objects.create(
        lineage=lineage, alias="live", kind="first", version=version, actor="ada", reason="asked for", at=timezone.now()
    )
    return version


class TestActivate:
    def test_it_tells_what_it_took_the_place_of(self, loaderd: FakeLoaderd, run: Run) -> None:
        loaderd.result = {**LIVE, "freed_bytes": 7 * 1024**2, "gap_seconds": 0.3}
        assert run("activate", "sentiment-v1", "--allow-gap", "--reason", "better") == (
            0,
            "sentiment-v1: live, loaded in 0.20 s, in place of sentiment-v2, 7 MiB freed, nobody answered for 0.30 s\n",
            "",
        )
        operation = Operation.objects.get()
        assert (operation.kind, operation.reason, operation.source) == ("activate", "better", "command")
        assert operation.parameters["allow_gap"] is True

    def test_what_is_live_already_is_told_as_such(self, loaderd: FakeLoaderd, run: Run) -> None:
        ModelVersion.objects.filter(model_id="sentiment-v2").update(status="loaded", desired_state="loaded")
        told = "sentiment-v2: is live already; nothing was done\n"
        assert run("activate", "sentiment-v2") == (0, told, "")
        assert [operation.result["was_live"] for operation in loaderd.seen + list(Operation.objects.all())] == [True]

    def test_a_failure_ends_with_1(self, loaderd: FakeLoaderd, run: Run) -> None:
        loaderd.error = CanaryFailed("sentiment-v1 answers its canary otherwise.").to_message()
        status, out, err = run("activate", "sentiment-v1")
        assert (status, out) == (1, "")
        assert "answers its canary otherwise" in err

    def test_a_lineage_is_no_version(self, loaderd: FakeLoaderd, run: Run) -> None:
        status, _, err = run("activate", "sentiment")
        assert status == 1
        assert "No model has the id 'sentiment'" in err


class TestRollback:
    @pytest.mark.parametrize("to", [[], ["--to", "sentiment-v1"]])
    def test_it_goes_back(self, loaderd: FakeLoaderd, run: Run, first_live: ModelVersion, to: list[str]) -> None:
        loaderd.result = LIVE
        status, out, _ = run("rollback", "sentiment", *to)
        assert (status, out) == (0, "sentiment-v1: live, loaded in 0.20 s, in place of sentiment-v2\n")
        assert [(operation.kind, operation.version) for operation in loaderd.seen] == [("rollback", first_live)]

    def test_it_is_refused_where_nothing_was_live_before(self, loaderd: FakeLoaderd, run: Run) -> None:
        status, _, err = run("rollback", "sentiment")
        assert status == 1
        assert "was live before" in err

    def test_json(self, loaderd: FakeLoaderd, run: Run, first_live: ModelVersion) -> None:
        loaderd.result = LIVE
        (outcome,) = json.loads(run("rollback", "sentiment", "--json")[1])
        assert (outcome["status"], outcome["result"]) == ("succeeded", LIVE)


@pytest.mark.usefixtures("loaderd_is_heard")
class TestVersions:
    def test_the_highest_comes_first_with_its_names(self, run: Run) -> None:
        status, out, _ = run("versions")
        rows = [line.split() for line in out.splitlines()[1:]]
        assert status == 0
        assert rows == [
            ["sentiment", "10.0.0", "sentiment-v10", "unloaded", "candidate"],
            ["sentiment", "2.0.0", "sentiment-v2", "unloaded", "live"],
            ["sentiment", "1.0.0", "sentiment-v1", "unloaded"],
        ]

    def test_one_lineage_tells_who_was_live_when(self, run: Run, first_live: ModelVersion) -> None:
        ModelVersion.objects.filter(pk=first_live.pk).update(rolled_back_at=timezone.now())
        out = run("versions", "sentiment")[1]
        assert "rolled back" in out
        assert out.splitlines()[-1].split()[3:] == ["now", "sentiment-v1", "first", "ada", "asked", "for"]

    def test_of_a_long_history_the_newest_periods_are_told(
        self, run: Run, first_live: ModelVersion, lineage: Model
    ) -> None:
        second = lineage.versions.get(model_id="sentiment-v2")
        LineageChange.objects.create(
            lineage=lineage, alias="live", kind="activate", version=second, actor="ada", at=timezone.now()
        )
        for limit, told in (("1", ["sentiment-v2"]), ("9", ["sentiment-v2", "sentiment-v1"])):
            facts = json.loads(run("versions", "sentiment", "--json", "--limit", limit)[1])
            assert [period["model_id"] for period in facts["history"]] == told
        with pytest.raises(CommandError, match="0 is less than 1"):
            call_command("versions", "sentiment", "--limit", "0")

    def test_json(self, run: Run, first_live: ModelVersion) -> None:
        facts = json.loads(run("versions", "sentiment", "--json")[1])
        assert (facts["live"], facts["aliases"]["candidate"]) == ("sentiment-v2", "sentiment-v10")
        assert facts["versions"][0]["model_id"] == "sentiment-v10"
        assert (facts["history"][0]["model_id"], facts["history"][0]["until"]) == ("sentiment-v1", None)
        assert [lineage["lineage"] for lineage in json.loads(run("versions", "--json")[1])] == ["sentiment"]

    def test_an_unknown_lineage_ends_with_1(self) -> None:
        with pytest.raises(CommandError, match="No lineage is named 'none-such'") as refused:
            call_command("versions", "none-such")
        assert refused.value.returncode == 1


class TestAlias:
    def test_it_is_set_and_taken_away(self, run: Run, lineage: Model) -> None:
        assert run("alias", "sentiment", "stable", "sentiment-v1") == (
            0,
            "sentiment/stable: leads to sentiment-v1\n",
            "",
        )
        assert lineage.aliases.get(name="stable").version.model_id == "sentiment-v1"
        told = json.loads(run("alias", "sentiment", "stable", "--remove", "--json")[1])
        assert told == {"lineage": "sentiment", "alias": "stable", "model_id": None}
        assert not lineage.aliases.filter(name="stable").exists()

    @pytest.mark.parametrize("arguments", [[], ["sentiment-v1", "--remove"]])
    def test_a_version_or_remove_is_needed(self, arguments: list[str]) -> None:
        with pytest.raises(CommandError) as refused:
            call_command("alias", "sentiment", "stable", *arguments)
        assert refused.value.returncode == 2

    def test_live_is_refused(self) -> None:
        with pytest.raises(CommandError, match="activate") as refused:
            call_command("alias", "sentiment", "live", "sentiment-v1")
        assert refused.value.returncode == 1


class TestTraffic:
    def test_it_is_set_and_shown_side_by_side(self, run: Run) -> None:
        status, out, _ = run("traffic", "sentiment", "--candidate-percent", "10", "--shadow")
        assert status == 0
        assert out.startswith(f"sentiment at {timezone.now():%Y-%m-%d}")
        assert "sentiment-v2 is live; 10 % of the requests go to the candidate, sentiment-v10, which gets a copy" in out
        seen_at = timezone.now() + timedelta(seconds=1)
        record_comparisons(
            [
                Comparison(
                    *("sentiment", "sentiment-v2", "sentiment-v10"),
                    at=seen_at.timestamp(),
                    compared=100,
                    disagreed=3,
                    live_requests=50,
                    live_latency_seconds=0.1,
                    candidate_requests=50,
                    candidate_errors=1,
                    candidate_latency_seconds=0.2,
                )
            ]
        )
        out = run("traffic", "sentiment", "--no-shadow")[1]
        assert "copy" not in out.splitlines()[0]
        lines = [line.split() for line in out.splitlines()]
        assert ["live", "sentiment-v2", "50", "0.00%", "2.0"] in lines
        assert ["candidate", "sentiment-v10", "50", "2.00%", "4.0"] in lines
        assert f" to {seen_at:%Y-%m-%d %H:%M:%S} UTC; of the split before" in out
        assert "of the split before: 3 of 100 answers differed (3.00%), 0 copies were not sent." in out

    def test_json_without_a_change_only_looks(self, run: Run) -> None:
        told = json.loads(run("traffic", "sentiment", "--json")[1])
        assert (told["candidate"], told["candidate_percent"], told["comparison"]) == ("sentiment-v10", 0.0, None)
        assert not LineageChange.objects.exists()

    def test_a_share_that_is_none_is_refused(self) -> None:
        with pytest.raises(CommandError, match="from 0 to 100") as refused:
            call_command("traffic", "sentiment", "--candidate-percent", "101")
        assert refused.value.returncode == 1
