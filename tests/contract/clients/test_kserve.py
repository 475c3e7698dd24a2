"""KServe's `InferenceRESTClient` works here as it does against KServe."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.loaderd.gateway.door import TOKEN

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "kserve.txt"
INSTALL_SECONDS = 300


@pytest.fixture(scope="module")
def packages() -> Path:
    """The folder with KServe's client, installed once for each content of its requirements."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:16]
    folder = Path(sys.prefix) / f"kserve-{digest}"
    if not folder.exists():
        made = folder.with_suffix(f".{os.getpid()}")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
        done = subprocess.run(
            [*command, "--no-deps", "--target", str(made), "-r", str(REQUIREMENTS)],
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
        )
        if done.returncode != 0:
            pytest.skip(f"KServe's client cannot be installed here: {done.stderr[-500:]}")
        made.rename(folder)
    return folder


@pytest.mark.timeout(INSTALL_SECONDS + 60)
def test_the_rest_client(packages: Path, address: str) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / "kserve_calls.py"), address, TOKEN],
        env={**os.environ, "PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert (told["live"], told["ready"], told["model ready"], told["other ready"]) == (True, True, True, False)
    for way in ("json", "binary"):
        texts = told[f"texts {way}"]
        assert (texts["id"], texts["model"]) == ("seven", "echo")
        assert (texts["echo"], texts["length"]) == (["ä", "two words"], [1, 9])
        assert told[f"rows {way}"] == [[1.0, 3.0], [4.0, 6.0]]
        assert told[f"rows {way} header"] is (way == "binary")
    assert told["a dictionary"] == [[2.0, 4.0]]
    status, sentence = told["error of nothing"]
    assert status == 404
    assert 'No model named "nothing"' in sentence
    status, sentence = told["error of double"]
    assert status == 400
    assert 'The model has no input "text"' in sentence
