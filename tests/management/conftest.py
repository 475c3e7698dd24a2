"""The registry and the loaderd of the API's tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.core.management import call_command

from tests.api.conftest import (  # noqa: F401
    _listening_ends_before_the_database,
    lineage,
    loaderd,
    loaderd_is_heard,
    make_version,
    open_alert,
    planner,
)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command: (exit status, standard output, standard error)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = 0
        try:
            call_command(*arguments)
        except SystemExit as end:
            status = int(end.code or 0)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run
