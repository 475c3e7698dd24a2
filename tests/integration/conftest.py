"""One running product for all integration tests of a session, over the trained sample models."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.stack import Stack, fresh_stack


@pytest.fixture(scope="session")
def stack(sample_store: Path) -> Iterator[Stack]:
    with fresh_stack() as stack:
        shutil.copytree(sample_store, stack.models_dir, dirs_exist_ok=True)
        stack.start().wait_for_zygotes()
        yield stack
        assert stack.process is not None
        assert stack.process.poll() is None, "up ended by itself:\n" + "".join(stack.output[-80:])


@pytest.fixture
def api(stack: Stack) -> Iterator[httpx.Client]:
    with stack.api() as client:
        yield client
