from __future__ import annotations

import pytest

from loaderd import catalogue


@pytest.fixture(scope="session", autouse=True)
def _imported() -> None:
    catalogue.framework("transformers").ensure_imported()
