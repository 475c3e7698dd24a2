"""Where tests keep their state: one fresh folder a run, shared by the workers of pytest-xdist."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from modelhub import postgres
from modelhub.conf import Config

RUN_FOLDER = "MODELHUB_TEST_RUN_FOLDER"
PREFIX = "modelhub-test-"


def prepare() -> None:
    """Sets the environment before Django's settings are read. A DATABASE_URL from outside is respected."""
    if RUN_FOLDER not in os.environ:  # otherwise: a worker of a run that is prepared
        remove_abandoned()
        os.environ[RUN_FOLDER] = str(fresh_folder())
    folder = Path(os.environ[RUN_FOLDER])
    os.environ["MODELHUB_STATE_DIR"] = str(folder / "state")
    os.environ["MODELS_DIR"] = str(folder / "models")
    (folder / "models").mkdir(exist_ok=True)


def remove() -> None:
    """Ends what runs in this run's folder and removes it."""
    remove_folder(Path(os.environ.pop(RUN_FOLDER)))


def fresh_folder(mode: int = 0o755) -> Path:
    """A short path, for sockets, that the next run removes if this one is killed.

    Others may enter: Postgres runs as another user when the tests run as root.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-")).resolve()
    folder.chmod(mode)
    return folder


def remove_folder(folder: Path) -> None:
    """Ends the embedded Postgres of its `state` folder, wherever it lives, and removes all of both."""
    config = Config(MODELHUB_STATE_DIR=folder / "state", DATABASE_URL="")
    home = postgres.home_of(config)
    postgres.stop(config)
    for left in (home.folder, home.socket_dir, config.run_dir, folder):
        shutil.rmtree(left, ignore_errors=True)


def remove_abandoned() -> None:
    """Removes what runs left that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        pid = folder.name.removeprefix(PREFIX).partition("-")[0]
        if folder.stat().st_uid == os.getuid() and not Path("/proc", pid).exists():
            remove_folder(folder)


def for_child(**values: str) -> dict[str, str]:
    """The environment of a real Modelhub process that shares nothing with the test run but `values`."""
    ours = ("MODELHUB_", "PYTEST_", "DJANGO_", "DATABASE_URL", "MODELS_DIR", "MAKE", "MFLAGS")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | values
