"""Places for embedded servers: one that every user reaches, one under a 0700 parent."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelhub import postgres
from modelhub.conf import Config
from modelhub.postgres import home


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are 0700."""
    folder = Path(tempfile.mkdtemp(prefix="modelhub-postgres-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def config(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    """The settings of an installation whose server is stopped at the end, wherever it lives."""
    monkeypatch.setattr(home, "ROOT_HOMES", open_folder / "root-homes")
    made = Config(MODELHUB_STATE_DIR=open_folder / "state", DATABASE_URL="")
    yield made
    stop_all(made)


@pytest.fixture
def hidden_config(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    """The same under a folder that only this user may enter."""
    monkeypatch.setattr(home, "ROOT_HOMES", open_folder / "root-homes")
    (open_folder / "private").mkdir(mode=0o700)
    made = Config(MODELHUB_STATE_DIR=open_folder / "private" / "state", DATABASE_URL="")
    yield made
    stop_all(made)


def stop_all(config: Config) -> None:
    with contextlib.suppress(postgres.PostgresError):
        postgres.stop(config)


requires_root = pytest.mark.skipif(os.getuid() != 0, reason="changes users")
