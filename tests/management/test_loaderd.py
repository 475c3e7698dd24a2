"""`manage.py loaderd` says in a line why it cannot start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.environment import for_child

PROJECT_DIR = Path(__file__).resolve().parents[2]


def test_without_a_registry_it_ends_with_one_clear_line(tmp_path: Path) -> None:
    environment = for_child(
        MODELHUB_STATE_DIR=str(tmp_path / "var"), DATABASE_URL="postgres://nobody:hush@127.0.0.1:1/none"
    )
    done = subprocess.run(
        [sys.executable, "manage.py", "loaderd"],
        cwd=PROJECT_DIR,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "DATABASE_URL" in done.stderr
    assert "hush" not in done.stderr
