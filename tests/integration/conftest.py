"""One running product for all integration tests of a session, over the trained sample models."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.stack import Stack


@pytest.fixture(scope="session")
def stack(sample_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    models_dir = folder / "models_store"
    shutil.copytree(sample_store, models_dir)
    stack = Stack(folder / "var", models_dir)
    try:
        stack.start().wait_for_zygotes()
        yield stack
    finally:
        if stack.process is not None and stack.process.poll() is None:
            stack.stop()


@pytest.fixture
def api(stack: Stack) -> Iterator[httpx.Client]:
    with stack.api() as client:
        yield client
