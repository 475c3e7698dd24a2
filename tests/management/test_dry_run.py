"""--dry-run tells loaderd's plan, changes nothing, and ends with 1 when it could not be done."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modelhub.lifecycle.models import LineageChange, Operation
from modelhub.registry.models import Model
from tests.api.conftest import ControlSocket, MakeVersion
from tests.management.conftest import Run

pytestmark = pytest.mark.usefixtures("lineage")

MIB = 1024**2
EVICTS: dict[str, Any] = {
    "decision": "evicts",
    "model_id": "sentiment-v1",
    "evict": [{"model_id": "idle", "bytes": 150 * MIB, "gpu_bytes": 0, "reason": "idle 3 h"}],
    "kept": [{"model_id": "kept", "bytes": 9 * MIB, "reason": "pinned"}],
    "sentence": "Loading sentiment-v1 needs 210 MiB (measured); evicts idle (150 MiB).",
}
REFUSED = {**EVICTS, "decision": "refused", "evict": [], "sentence": "sentiment-v1 does not fit."}


def test_load_names_what_would_go(planner: ControlSocket, run: Run) -> None:
    planner.plan = EVICTS
    assert run("load", "sentiment-v1", "--dry-run") == (
        0,
        f"{EVICTS['sentence']}\n  would go: idle, 150 MiB, idle 3 h\n",
        "",
    )
    assert not Operation.objects.exists()


def test_a_refusal_names_what_stays_and_ends_with_1(planner: ControlSocket, run: Run) -> None:
    planner.plan = REFUSED
    status, out, err = run("load", "sentiment-v1", "--dry-run")
    assert (status, out) == (1, "")
    assert "sentiment-v1 does not fit.\n  stays: kept, 9 MiB, pinned" in err


def test_each_model_is_planned_and_one_that_is_unknown_fails(planner: ControlSocket, run: Run) -> None:
    planner.plan = {"decision": "frees", "model_id": "sentiment-v2", "sentence": "Unloading it gives back 9 MiB."}
    status, out, err = run("unload", "sentiment", "none-such", "--dry-run")
    assert (status, out) == (1, "Unloading it gives back 9 MiB.\n")
    assert "'none-such'" in err
    assert [(asked["action"], asked["model_id"]) for asked in planner.received] == [("unload", "sentiment-v2")]


def test_json_is_the_plans(planner: ControlSocket, run: Run) -> None:
    planner.plan = EVICTS
    status, out, _ = run("load", "sentiment-v1", "none-such", "--dry-run", "--json")
    known, unknown = json.loads(out)
    assert (status, known, unknown["error"]["code"]) == (1, EVICTS, "model_not_found")


def test_optimize_names_what_would_go(planner: ControlSocket, run: Run) -> None:
    planner.plan = {
        "decision": "frees",
        "victims": EVICTS["evict"],
        "sentence": "Unloading 1 model gives back 150 MiB.",
    }
    assert run("optimize", "--dry-run") == (
        0,
        "Unloading 1 model gives back 150 MiB.\n  would go: idle, 150 MiB, idle 3 h\n",
        "",
    )


@pytest.mark.parametrize(("arguments", "status"), [([], 1), (["--allow-gap"], 0)])
def test_an_activation_that_needs_a_gap_says_so(
    planner: ControlSocket, run: Run, arguments: list[str], status: int
) -> None:
    planner.plan = {**EVICTS, "replaces": "sentiment-v2", "needs_gap": True}
    ended, _, err = run("activate", "sentiment-v1", "--dry-run", *arguments)
    assert ended == status
    assert ("does not fit beside sentiment-v2, which is live; with --allow-gap" in err) == (status == 1)


@pytest.mark.parametrize(
    ("to", "told"),
    [("sentiment-v2", "sentiment-v2 is live already."), ("other-v1", "other-v1 is no version of sentiment.")],
)
def test_a_rollback_is_refused_as_the_command_itself_would_be(
    planner: ControlSocket, run: Run, make_version: MakeVersion, to: str, told: str
) -> None:
    make_version("other-v1", lineage="other")
    planned, done = (run("rollback", "sentiment", "--to", to, *more) for more in (["--dry-run"], []))
    assert (planned[0], done[0]) == (1, 1)
    assert told in planned[2]
    assert told in done[2]
    assert not planner.received
    assert not Operation.objects.exists()


def test_a_rollback_plans_its_target(planner: ControlSocket, run: Run, lineage: Model) -> None:
    planner.plan = {**EVICTS, "replaces": "sentiment-v2", "needs_gap": False}
    status, _, err = run("rollback", "sentiment", "--dry-run")
    assert status == 1
    assert "name one with --to" in err
    version = lineage.versions.get(model_id="sentiment-v1")
    LineageChange.objects.create(
        lineage=lineage, alias="live", kind="first", version=version, actor="ada", at=version.created_at
    )
    assert run("rollback", "sentiment", "--dry-run")[0] == 0
    assert planner.received[0]["spec"]["model_id"] == "sentiment-v1"
