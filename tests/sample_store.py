"""The fixture `sample_store`: the sample models, trained for real, and again only when what they depend on changes."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest

from samples.catalogue import SAMPLES
from samples.making import make_samples

SOURCES = Path(__file__).resolve().parent.parent / "samples"
LIBRARIES = ("scikit-learn", "skops", "numpy", "torch", "transformers", "tokenizers", "tensorflow", "keras")
TRAINING_TIMEOUT_SECONDS = 420  # of a test that may have to train first, or wait for another that does


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "sample_store" in getattr(item, "fixturenames", ()) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TRAINING_TIMEOUT_SECONDS))


@pytest.fixture(scope="session")
def sample_store(request: pytest.FixtureRequest) -> Path:
    """A store with every sample model. Shared by all tests and kept between runs: copy it before you change it."""
    cache = request.config.cache
    assert cache is not None, "the sample models are kept in pytest's cache; do not switch it off"
    folder = cache.mkdir("samples")
    store = folder / _key()
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of pytest-xdist come here together
        if not store.exists():
            _train(folder, store)
    return store


def _train(folder: Path, store: Path) -> None:
    for old in folder.iterdir():
        if old.is_dir():
            shutil.rmtree(old)
    making = folder / "making"
    making.mkdir()
    failed = [outcome for outcome in make_samples(making, SAMPLES) if outcome.status != "made"]
    assert not failed, failed
    making.rename(store)


def _key() -> str:
    """Changes when a trainer, the corpus or a library does."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.rglob("*")):
        if path.suffix in {".py", ".jsonl"} and path.name != "bench_models.py":
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    digest.update(" ".join(f"{name}={version(name)}" for name in LIBRARIES).encode())
    return digest.hexdigest()[:16]
