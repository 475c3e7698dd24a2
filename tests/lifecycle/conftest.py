"""A registry in the real Postgres, a loaderd that loads nothing, and a queue worker on a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone
from django_q.signing import SignedPackage

from modelhub.conf import config
from modelhub.lifecycle import tasks
from modelhub.lifecycle.broker import NotifyBroker
from modelhub.lifecycle.models import LoaderStatus
from modelhub.lifecycle.notifications import stop_listening
from modelhub.lifecycle.reporting import DatabaseReporter
from modelhub.registry.models import Model, ModelVersion
from tests.lifecycle.fake_loaderd import FakeLoaderd, succeed

MakeVersion = Callable[..., ModelVersion]
Tell = Callable[..., None]


@pytest.fixture(autouse=True)
def _listening_ends_with_the_test() -> Iterator[None]:
    yield
    stop_listening()


@pytest.fixture
def make_version(db: None) -> MakeVersion:
    def make(model_id: str = "topic-v1", **fields: Any) -> ModelVersion:
        lineage, _ = Model.objects.get_or_create(name=fields.pop("lineage", model_id))
        values = {
            "name": model_id,
            "path": f"topic/{model_id}",
            "framework": "sklearn",
            "artifact_format": "skops",
            "digest": "a" * 64,
        }
        return ModelVersion.objects.create(lineage=lineage, model_id=model_id, **{**values, **fields})

    return make


@pytest.fixture
def version(make_version: MakeVersion) -> ModelVersion:
    return make_version()


@pytest.fixture
def admin(db: None) -> User:
    return User.objects.create_superuser("ada", password="x")


@pytest.fixture
def loaderd_is_heard(db: None) -> LoaderStatus:
    """For the length of a test, without heartbeats."""
    later = timezone.now() + timedelta(hours=1)
    return LoaderStatus.objects.create(pk=1, pid=1, boot_id="b", started_at=timezone.now(), observed_at=later)


@pytest.fixture
def reporter(transactional_db: None) -> Iterator[DatabaseReporter]:
    reporter = DatabaseReporter()
    reporter.start({"pid": 1, "boot_id": "b", "started_at": 1.0}).result(10)
    LoaderStatus.objects.update(observed_at=timezone.now() + timedelta(hours=1))
    yield reporter
    assert reporter.close(10)


@pytest.fixture
def tell(transactional_db: None) -> Tell:
    """Reports through a reporter of its own and returns when all is written."""

    def tell(*reports: Any) -> None:
        reporter = DatabaseReporter()
        reporter._outbox.start()
        for report in reports:
            reporter.report(report)
        assert reporter.close(20)

    return tell


@pytest.fixture
def outage(transactional_db: None) -> Iterator[Callable[[], None]]:
    """Call it: connections end and new ones are refused, but for the test's own; allow_connections(True) ends it."""

    def begin() -> None:
        allow_connections(False)
        terminate_backends()

    yield begin
    allow_connections(True)


@pytest.fixture
def loaderd(reporter: DatabaseReporter) -> Iterator[FakeLoaderd]:
    """Does what it is told at once, and reports it through the real reporter."""
    fake = FakeLoaderd(config().control_socket, succeed(reporter.report))
    yield fake
    fake.close()


@pytest.fixture
def silent_loaderd(loaderd_is_heard: LoaderStatus) -> Iterator[FakeLoaderd]:
    """Takes commands and reports nothing."""
    fake = FakeLoaderd(config().control_socket)
    yield fake
    fake.close()


@pytest.fixture
def queue(transactional_db: None) -> Iterator[None]:
    """Runs tasks as a worker of the cluster does."""
    is_over = threading.Event()

    def work() -> None:
        broker = NotifyBroker()
        while not is_over.is_set():
            for task_id, payload in broker.dequeue() or ():
                task = SignedPackage.loads(payload)
                assert task["func"] == "modelhub.lifecycle.tasks.dispatch"
                tasks.dispatch(*task["args"])
                broker.acknowledge(task_id)
        connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    yield
    is_over.set()
    thread.join(10)


def in_thread(function: Callable[[], Any]) -> threading.Thread:
    """Starts `function` on a thread whose database connection is closed after it."""

    def run() -> None:
        try:
            function()
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def allow_connections(is_allowed: bool) -> None:
    # A database can only be closed from another one.
    own = connection.get_connection_params()
    with psycopg.connect(**{**own, "dbname": "postgres"}, autocommit=True) as elsewhere:
        elsewhere.execute(f'ALTER DATABASE "{own["dbname"]}" ALLOW_CONNECTIONS {str(is_allowed).lower()}')


def terminate_backends(condition: str = "true") -> int:
    """Ends the connections of all others to this database, as a restart of Postgres does; returns how many."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            f"WHERE datname = current_database() AND pid <> pg_backend_pid() AND {condition}"
        )
        return int(cursor.fetchone()[0])
