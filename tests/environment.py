"""Where tests keep their state: one fresh folder a run, shared by the workers of pytest-xdist."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

RUN_FOLDER = "MODELHUB_TEST_RUN_FOLDER"
PREFIX = "modelhub-test-"


def prepare() -> None:
    """Sets the environment before Django's settings are read. A DATABASE_URL from outside is respected."""
    if RUN_FOLDER not in os.environ:  # otherwise: a worker of a run that is prepared
        remove_abandoned()
        folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        folder.chmod(0o755)  # Postgres runs as another user when the tests run as root
        os.environ[RUN_FOLDER] = str(folder)
    folder = Path(os.environ[RUN_FOLDER])
    os.environ["MODELHUB_STATE_DIR"] = str(folder / "state")
    os.environ["MODELS_DIR"] = str(folder / "models")
    (folder / "models").mkdir(exist_ok=True)


def remove() -> None:
    """Ends what runs in this run's folder and removes it."""
    _remove(Path(os.environ.pop(RUN_FOLDER)))


def remove_abandoned() -> None:
    """Removes what runs left that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        pid = folder.name.removeprefix(PREFIX).partition("-")[0]
        if folder.stat().st_uid == os.getuid() and not Path("/proc", pid).exists():
            _remove(folder)


def for_child(**values: str) -> dict[str, str]:
    """The environment of a real Modelhub process that shares nothing with the test run but `values`."""
    ours = ("MODELHUB_", "PYTEST_", "DJANGO_", "DATABASE_URL", "MODELS_DIR", "MAKE", "MFLAGS")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | values


def _remove(folder: Path) -> None:
    for pid_file in folder.rglob("postmaster.pid"):
        try:
            os.kill(int(pid_file.read_text().split("\n", 1)[0]), signal.SIGQUIT)
        except (ValueError, OSError):
            continue
    shutil.rmtree(folder, ignore_errors=True)
