"""The zygote's rule: after the import there is one thread, and what is forked from it can load and predict."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.cases import CASES, Case

PROJECT = Path(__file__).resolve().parent.parent.parent
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
REHEARSED = {
    "sklearn": ("skops-text", "joblib-forest"),
    "transformers": ("safetensors-sequence", "safetensors-minilm"),
    "tensorflow": ("keras-text", "saved-model-numbers"),
}


@pytest.mark.parametrize("framework", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in REHEARSED])
def test_children_of_a_zygote_load_and_predict(
    framework: str, directory_of: Callable[[Case], Path], tmp_path: Path
) -> None:
    chosen = [case for case in CASES if case.name in REHEARSED[framework]]
    listing = tmp_path / "cases.json"
    listing.write_text(json.dumps([[case.name, str(directory_of(case))] for case in chosen]))
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(PROJECT), **ONE_THREAD}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.contract.zygote_rehearsal", framework, str(listing)],
        env=environment,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["threads"] == 1
    assert not [child for child in told["children"] if "failed" in child]
    for case in chosen:
        answers = [child["outputs"] for child in told["children"] if child["case"] == case.name]
        assert len(answers) == 5
        assert all(answer == answers[0] for answer in answers)


def test_naming_a_framework_imports_no_library() -> None:
    program = (
        "import sys; from loaderd import catalogue\n"
        "made = [catalogue.framework(name) for name in catalogue.entries()]\n"
        "print([name for name in ('sklearn', 'torch', 'transformers', 'tensorflow', 'keras', 'joblib', 'numpy')"
        " if name in sys.modules])"
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
