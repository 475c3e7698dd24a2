"""The real cluster in its own processes: it delivers, it stops, and it leaves nothing when it is killed."""

from __future__ import annotations

import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest
from django.conf import settings
from django.db import connection
from django_q.models import OrmQ

from modelhub.conf import PROJECT_DIR
from modelhub.lifecycle.actions import request_load, request_unload
from modelhub.lifecycle.cluster import MAX_EARLY_ENDS
from modelhub.lifecycle.models import Operation, StateChange
from modelhub.lifecycle.notifications import wait_for
from modelhub.lifecycle.reporting import DatabaseReporter
from modelhub.registry.models import ModelVersion
from tests import environment
from tests.deadline import wait_until
from tests.lifecycle.conftest import MakeVersion
from tests.lifecycle.fake_loaderd import FakeLoaderd, succeed

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.integration]

PROCESSES = 5  # main, sentinel, two workers, pusher, monitor: main is not its own child


def database_url() -> str:
    own = connection.settings_dict
    secret = f":{quote(own['PASSWORD'], safe='')}" if own["PASSWORD"] else ""
    port = f":{own['PORT']}" if own["PORT"] else ""
    return f"postgres://{quote(own['USER'], safe='')}{secret}@{quote(own['HOST'], safe='')}{port}/{own['NAME']}"


class RealCluster:
    """`manage.py queue` over the test's database, with a state folder of its own."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.control_socket = state_dir / "run" / "control.sock"
        self.lock = state_dir / "run" / "queue.lock"

    def start(self) -> None:
        if hasattr(self, "output"):
            self.output.close()
        self.output = (self.state_dir / "queue.log").open("w+")
        self.main = psutil.Popen(
            [sys.executable, "manage.py", "queue"],
            cwd=PROJECT_DIR,
            env=environment.for_child(
                DATABASE_URL=database_url(),
                MODELHUB_STATE_DIR=str(self.state_dir),
                MODELS_DIR=str(settings.CONFIG.MODELS_DIR),
                SECRET_KEY=settings.SECRET_KEY,
                DJANGO_SETTINGS_MODULE="modelhub.settings",
            ),
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.STDOUT,
        )

    def wait_until_ready(self) -> list[psutil.Process]:
        """All children, once the pusher listens."""
        wait_until(
            lambda: len(self.children()) == PROCESSES and _has_listener(), 30, self.log() or "the cluster starts"
        )
        return self.children()

    def children(self) -> list[psutil.Process]:
        return list(self.main.children(recursive=True)) if self.main.is_running() else []

    def children_of_sentinel(self) -> list[psutil.Process]:
        return [child for sentinel in self.main.children() for child in sentinel.children()]

    def log(self) -> str:
        return Path(self.output.name).read_text()

    def end(self) -> None:
        for process in [*self.children(), self.main]:
            if process.is_running():
                process.kill()
        self.main.wait(10)
        self.output.close()


def _has_listener() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%SKIP LOCKED%' "
            "AND pid <> pg_backend_pid()"
        )
        return bool(cursor.fetchone()[0])


@pytest.fixture
def cluster() -> Iterator[RealCluster]:
    with tempfile.TemporaryDirectory(prefix="mh-queue-") as folder:
        cluster = RealCluster(Path(folder))
        cluster.start()
        yield cluster
        cluster.end()


@pytest.fixture
def loaderd(reporter: DatabaseReporter, cluster: RealCluster) -> Iterator[FakeLoaderd]:
    fake = FakeLoaderd(cluster.control_socket, succeed(reporter.report))
    yield fake
    fake.close()


def test_commands_reach_loaderd_and_their_end_comes_back(
    cluster: RealCluster, loaderd: FakeLoaderd, version: ModelVersion
) -> None:
    cluster.wait_until_ready()
    load = wait_for(request_load(version, user=None, source="api").pk, 20)
    assert (load.status, load.attempts, load.error) == ("succeeded", 1, None)
    unload = wait_for(request_unload(version, user=None, source="api").pk, 20)
    assert (unload.status, unload.result["status"]) == ("succeeded", "unloaded")
    assert loaderd.executed == [str(load.pk), str(unload.pk)]
    wait_until(lambda: not OrmQ.objects.exists(), what="the tasks are acknowledged")
    assert cluster.log() == ""


def test_a_command_is_passed_on_by_notifications_and_not_by_looking_again(
    cluster: RealCluster, loaderd: FakeLoaderd, version: ModelVersion
) -> None:
    """Request, queue, loaderd's socket, report, wake: tens of milliseconds; each look again would take a second."""
    cluster.wait_until_ready()
    milliseconds = []
    for number in range(40):
        ask = request_load if number % 2 == 0 else request_unload
        began = time.perf_counter()
        assert wait_for(ask(version, user=None, source="api").pk, 20).status == "succeeded"
        milliseconds.append((time.perf_counter() - began) * 1000)
    print(f"control plane: p50 {statistics.median(milliseconds):.1f} ms, max {max(milliseconds):.1f} ms")
    assert statistics.median(milliseconds) < 500


def test_sigterm_ends_all_of_it_within_seconds(cluster: RealCluster) -> None:
    children = cluster.wait_until_ready()
    cluster.main.send_signal(signal.SIGTERM)
    assert cluster.main.wait(8) == 0
    assert not [child for child in children if child.is_running()]


def test_no_child_outlives_a_killed_main_process(cluster: RealCluster) -> None:
    children = cluster.wait_until_ready()
    cluster.main.kill()
    psutil.wait_procs(children, timeout=5)
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("whom", ["sentinel", "children of the sentinel"])
def test_killed_processes_are_replaced(
    cluster: RealCluster, loaderd: FakeLoaderd, version: ModelVersion, whom: str
) -> None:
    """All of them: one that is killed while it waits for a task takes the lock of the queue with it."""
    before = cluster.wait_until_ready()
    for process in cluster.main.children() if whom == "sentinel" else cluster.children_of_sentinel():
        process.kill()
    wait_until(lambda: not any(process.is_running() for process in before), what="the old processes are gone")
    assert len(cluster.wait_until_ready()) == PROCESSES
    assert wait_for(request_load(version, user=None, source="api").pk, 20).status == "succeeded"


def test_processes_that_cannot_live_end_the_command_with_a_failure(cluster: RealCluster) -> None:
    for _ in range(MAX_EARLY_ENDS):
        [sentinel, *_] = cluster.wait_until_ready()
        sentinel.kill()
        psutil.wait_procs([sentinel], timeout=5)
    assert cluster.main.wait(10) == 1
    assert "(exit code -9)" in cluster.log()


@pytest.mark.parametrize("is_redelivered", [False, True])
def test_a_command_whose_worker_is_killed_is_completed_exactly_once(
    cluster: RealCluster, loaderd: FakeLoaderd, version: ModelVersion, is_redelivered: bool
) -> None:
    """Before loaderd took it, or after."""
    cluster.wait_until_ready()
    if is_redelivered:
        loaderd.hold.clear()
        operation = request_load(version, user=None, source="api")
        loaderd.wait_for_commands(1)
        psutil.Process(loaderd.peer_pids[0]).kill()
        loaderd.hold.set()
    else:
        with connection.cursor() as cursor:
            key = f"modelhub.dispatch:{version.pk}"
            cursor.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [key])
            operation = request_load(version, user=None, source="api")
            wait_until(lambda: _worker_waits_for_lock(cursor), what="a worker has the task")
            for process in cluster.children_of_sentinel():
                process.kill()
            cursor.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", [key])
        assert loaderd.received == []
    assert wait_for(operation.pk, 20).status == "succeeded"
    wait_until(lambda: not OrmQ.objects.exists(), what="the task is acknowledged")
    assert loaderd.executed == [str(operation.pk)]
    assert len(loaderd.received) == (2 if is_redelivered and Operation.objects.get().attempts == 2 else 1)
    assert ModelVersion.objects.get().load_count == 1
    assert StateChange.objects.filter(to_state="loaded").count() == 1


def _worker_waits_for_lock(cursor: Any) -> bool:
    cursor.execute(
        "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_advisory_lock(%' AND wait_event_type = 'Lock' "
        "AND datname = current_database()"
    )
    return cursor.fetchone() is not None


def test_it_works_on_after_postgres_ended_its_connections(
    cluster: RealCluster, loaderd: FakeLoaderd, make_version: MakeVersion
) -> None:
    cluster.wait_until_ready()
    first, second = make_version("first"), make_version("second")
    assert wait_for(request_load(first, user=None, source="api").pk, 20).status == "succeeded"
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert wait_for(request_load(second, user=None, source="api").pk, 20).status == "succeeded"
    assert Operation.objects.filter(status="succeeded").count() == 2


def test_a_stray_of_a_killed_main_process_is_ended_at_the_next_start(cluster: RealCluster) -> None:
    cluster.wait_until_ready()
    cluster.main.send_signal(signal.SIGTERM)
    cluster.main.wait(8)
    holds = (
        "import fcntl, sys, time; f = open(sys.argv[1]); fcntl.flock(f, 2); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", holds, cluster.lock], stdout=subprocess.PIPE, text=True) as stray:
        assert stray.stdout is not None
        assert stray.stdout.readline() == "held\n"
        cluster.start()
        assert stray.wait(20) == -signal.SIGKILL
    cluster.wait_until_ready()


def test_a_second_cluster_is_refused_while_the_first_lives(cluster: RealCluster) -> None:
    cluster.wait_until_ready()
    second = RealCluster(cluster.state_dir)
    second.start()
    assert second.main.wait(40) == 1
    assert f"Another queue runs as process {cluster.main.pid}" in second.log()
    second.output.close()
