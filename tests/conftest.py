"""One real embedded Postgres a run, started by the first test that needs it; a database per worker."""

from __future__ import annotations

import os

import pytest

from modelhub import postgres
from modelhub.conf import config as modelhub_config
from modelhub.console.site import counts
from tests import environment

pytest_plugins = ["tests.sample_store"]

# Nothing of a test run must survive a power cut.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


# The workers share one state folder, and so one control socket: tests that put a loaderd of their own there, or
# count on none, run on one worker.
ONE_CONTROL_SOCKET = ("tests/lifecycle/", "tests/inference/", "tests/api/test_control.py")
# Likewise: they look at all job folders of the run, and remove those that their database does not know.
ONE_JOBS_FOLDER = (
    *("tests/jobs/", "tests/api/test_jobs.py"),
    *("tests/console/test_jobs.py", "tests/console/test_predict_file.py"),
)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith(ONE_CONTROL_SOCKET):
            item.add_marker(pytest.mark.xdist_group("control-socket"))
        elif item.nodeid.startswith(ONE_JOBS_FOLDER):
            item.add_marker(pytest.mark.xdist_group("jobs-folder"))


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings: None) -> None:
    """Runs before pytest-django makes its databases."""
    if not modelhub_config().DATABASE_URL:
        postgres.start(modelhub_config(), settings=FAST)


@pytest.fixture(autouse=True)
def _badges_are_counted_for_every_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once a second, so a page costs the same number of queries whenever it is asked for."""
    monkeypatch.setattr(counts, "_max_age_seconds", 0.0)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ and environment.RUN_FOLDER in os.environ:
        environment.remove()
