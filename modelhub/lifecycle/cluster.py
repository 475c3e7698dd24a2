"""The queue's processes: django-q2's, none of which outlives its main process, and one set a run folder.

`main` forks the sentinel; that forks the workers, the pusher (fetches tasks) and the monitor (acknowledges them).
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import time
import uuid
from collections.abc import Iterator
from multiprocessing import Event
from pathlib import Path
from typing import Any

import psutil
from django.db import InterfaceError, OperationalError, connection
from django.utils import timezone
from django_q import cluster as django_q_cluster
from django_q.conf import Conf
from django_q.models import OrmQ
from django_q.signals import post_spawn

from loaderd.lifeline import die_with_parent
from modelhub.private_dir import ensure_private_dir

# A main process that was told to stop may still be at it when the next one starts.
HANDOVER_SECONDS = 10.0
# So many sentinels in a row that ended sooner than this after their start: the next one would, too.
MAX_EARLY_ENDS, EARLY_SECONDS = 3, 5.0

logger = logging.getLogger(__name__)


class AlreadyRunning(Exception):
    """Another main process holds this run folder."""


class ClusterDied(Exception):
    """The processes ended as soon as they were started."""


def run_cluster(run_dir: Path) -> None:
    """Returns after SIGTERM or SIGINT, when all processes have ended. Raises NotPrivate, AlreadyRunning or
    ClusterDied.
    """
    ensure_private_dir(run_dir)
    with _only_one(run_dir / "queue.lock"):
        _tie_children_to_parents()
        post_spawn.connect(_warm_up, weak=False)
        Main().run()


class Main:
    """Keeps a sentinel running until it is told to stop."""

    def __init__(self) -> None:
        self._is_stopping = False
        self._stop: Any = None  # of the present sentinel
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def run(self) -> None:
        early_ends = 0
        while not self._is_told_to_stop():
            _release_claims()
            started_at = time.monotonic()
            sentinel = self._fork_sentinel()
            if self._is_told_to_stop():  # between the look above and the fork
                self._stop.set()
            sentinel.join()
            early_ends = early_ends + 1 if time.monotonic() - started_at < EARLY_SECONDS else 0
            if early_ends == MAX_EARLY_ENDS and not self._is_told_to_stop():
                raise ClusterDied(
                    f"The queue's processes ended {early_ends} times soon after their start (exit code "
                    f"{sentinel.exitcode}); see the log above."
                )

    def _is_told_to_stop(self) -> bool:
        return self._is_stopping

    def _fork_sentinel(self) -> Any:
        self._stop = Event()
        sentinel = django_q_cluster.get_mp_context().Process(
            target=Sentinel, args=(self._stop, Event(), uuid.uuid4()), name="sentinel"
        )
        sentinel.start()
        return sentinel

    def _on_signal(self, *args: Any) -> None:
        self._is_stopping = True
        if self._stop is not None:
            self._stop.set()


class Sentinel(django_q_cluster.Sentinel):
    """Replaces what ended by itself; after a kill it ends everything, and main starts anew."""

    def reincarnate(self, process: Any) -> None:
        # Killed while it waited for a task, a process takes the lock of the task queue with it, and no other
        # would ever get a task again.
        if process.exitcode is not None and process.exitcode < 0:
            logger.error(
                "process %s of the queue was killed (signal %s); all start anew", process.pid, -process.exitcode
            )
            os._exit(1)
        super().reincarnate(process)


def _release_claims() -> None:
    """What an earlier cluster had claimed and not done comes again at once: there is no other one."""
    try:
        OrmQ.objects.filter(key=Conf.CLUSTER_NAME).update(lock=timezone.now())
    except (OperationalError, InterfaceError) as error:
        logger.warning("Postgres is away; claimed tasks come again after %d s: %s", Conf.RETRY, str(error).strip())
    finally:
        connection.close()  # forked processes must not share it


def _tie_children_to_parents() -> None:
    """From now on whoever is forked here, and their children, is killed when the process that forked it ends.

    Works because django-q2 forks on main threads only: the kernel watches the forking thread.
    """
    parent_pid = os.getpid()

    def remember() -> None:
        nonlocal parent_pid
        parent_pid = os.getpid()

    os.register_at_fork(before=remember, after_in_child=lambda: die_with_parent(parent_pid))


def _warm_up(**kwargs: object) -> None:
    """A worker's first task finds its connection open and its code imported."""
    from modelhub.lifecycle import tasks  # noqa: F401 (imported for the import)

    connection.ensure_connection()


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Holds the lock file, which the children inherit: whoever has it open belongs to the cluster.

    Ends what a killed main process left behind. Raises AlreadyRunning when the other one lives.
    """
    with path.open("a+") as lock:
        deadline = time.monotonic() + HANDOVER_SECONDS
        while not _locked(lock.fileno()):
            main_pid = int(path.read_text() or 0)
            family = _holders(path)
            if not any(process.pid == main_pid for process in family):
                for stray in family:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        stray.kill()
            elif time.monotonic() > deadline:
                raise AlreadyRunning(f"Another queue runs as process {main_pid}; stop it first.")
            time.sleep(0.1)
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _locked(fileno: int) -> bool:
    try:
        fcntl.flock(fileno, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holders(path: Path) -> list[psutil.Process]:
    """The other processes of this user that have the file open."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and any(held.path == str(path) for held in process.open_files()):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
