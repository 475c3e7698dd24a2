"""Where everything that the benchmarks make lies: below <MODELHUB_STATE_DIR>/bench."""

from __future__ import annotations

from pathlib import Path

from modelhub.conf import config

ROOM = Path(__file__).resolve().parent
PROJECT_DIR = ROOM.parent
SERVERS_DIR = ROOM / "servers"
REQUIREMENTS_DIR = ROOM / "requirements"
DOCUMENT = PROJECT_DIR / "docs" / "performance.md"
"""Its pictures lie in the folder of the same name beside it."""


def bench_dir() -> Path:
    return config().MODELHUB_STATE_DIR / "bench"


def environments_dir() -> Path:
    return bench_dir() / "envs"


def models_dir() -> Path:
    return bench_dir() / "models"


def store_dir() -> Path:
    """The same models as Modelhub's store wants them."""
    return bench_dir() / "store"
