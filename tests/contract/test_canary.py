"""A canary that one process recorded holds in another, for every kind of model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loaderd.frameworks.base import LoadedModel
from loaderd.worker.canary import Canary
from tests.contract.cases import CASES, Case, cases, spec_of

PROJECT = Path(__file__).resolve().parent.parent.parent

Recorded = Callable[[Case], dict[str, Any]]
Rehearsed = Callable[[str], dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def recorded(model_of: Callable[[Case], LoadedModel]) -> Recorded:
    """The canary of a case, as this process records it."""

    def record(case: Case) -> dict[str, Any]:
        canary: dict[str, Any] = Canary(spec_of(case), model_of(case)).at_load()["recorded"]
        return canary

    return record


@pytest.fixture(scope="module")
def rehearsed(
    recorded: Recorded, directory_of: Callable[[Case], Path], tmp_path_factory: pytest.TempPathFactory
) -> Rehearsed:
    """What a second process makes of the canaries of all models of a framework."""
    done: dict[str, dict[str, dict[str, Any]]] = {}

    def rehearse(framework: str) -> dict[str, dict[str, Any]]:
        if framework not in done:
            chosen = [case for case in CASES if case.framework == framework]
            listing = tmp_path_factory.mktemp("canaries") / "cases.json"
            listing.write_text(json.dumps([[case.name, str(directory_of(case)), recorded(case)] for case in chosen]))
            environment = {"PATH": os.environ["PATH"], "HOME": str(listing.parent), "PYTHONPATH": str(PROJECT)}
            program = [sys.executable, "-W", "ignore", "-m", "tests.contract.canary_rehearsal", framework, str(listing)]
            ended = subprocess.run(
                program, env=environment, cwd=PROJECT, capture_output=True, text=True, timeout=110, check=False
            )
            assert ended.returncode == 0, ended.stderr[-3000:]
            done[framework] = json.loads(ended.stdout.splitlines()[-1])
        return done[framework]

    return rehearse


@cases()
def test_a_recorded_canary_holds_in_another_process(case: Case, recorded: Recorded, rehearsed: Rehearsed) -> None:
    canary = recorded(case)
    assert canary["reproducible"] is True
    assert canary["inputs"] is not None
    assert set(canary["outputs"]) == set(case.outputs)
    assert rehearsed(case.framework)[case.name]["reason"] == ""


@cases()
def test_a_canary_is_small_and_json_for_any_database(case: Case, recorded: Recorded) -> None:
    text = json.dumps(recorded(case), allow_nan=False)
    assert len(text) < 32 * 1024
    assert "\\u0000" not in text


@cases()
def test_another_answer_than_recorded_is_noticed(case: Case, recorded: Recorded, model: LoadedModel) -> None:
    canary = recorded(case)
    for name, values in canary["outputs"].items():
        other = [f"not {values[0]}" if isinstance(values[0], str | list) else values[0] + 1, *values[1:]]
        wrong = {**canary, "outputs": {**canary["outputs"], name: other}}
        check_of = Canary(spec_of(case, wrong), model).check()
        assert not check_of.ok
        assert check_of.reason.startswith(f"it answers its canary wrongly: {name}[0]")
