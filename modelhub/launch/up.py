"""Starts everything, says when it is ready, and stops everything."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import psycopg
from django.core.management import CommandError, call_command
from django.db import Error as DatabaseError
from django.db import connections

from modelhub import postgres
from modelhub.actors import SYSTEM
from modelhub.conf import PROJECT_DIR, Config
from modelhub.launch import first_start, preflight, readiness, static_files
from modelhub.launch.instance_lock import InstanceLock
from modelhub.launch.manager import Manager
from modelhub.launch.part import Part
from modelhub.launch.preflight import NotReady
from modelhub.launch.restart import delay_after_death

MANAGE = (sys.executable, str(PROJECT_DIR / "manage.py"))
COMMANDS = {
    "web": (sys.executable, "-m", "gunicorn", "-c", "python:modelhub.launch.gunicorn_config", "modelhub.wsgi"),
    "queue": (*MANAGE, "queue"),
    "loaderd": (*MANAGE, "loaderd"),
    "jobs": (*MANAGE, "jobrunner"),
}
REMIND_SECONDS = 30.0
KEPT_FROM_PARTS = ("DJANGO_SUPERUSER_PASSWORD",)


class _Stop(BaseException):
    """Somebody asked to stop while things were still being prepared."""


def up(config: Config) -> None:
    """Returns when a stop was asked for and nothing runs any more. Raises NotReady when it cannot start."""
    with _stop_on_signals():
        preflight.check_state_dir(config)
        lock = InstanceLock(config.MODELHUB_STATE_DIR)
        try:
            preflight.check(config)
            with _database(config):
                _prepare(config)
                _run(config)
        finally:
            lock.close()


@contextmanager
def _stop_on_signals() -> Iterator[None]:
    def raise_stop(signum: int, frame: FrameType | None) -> None:
        raise _Stop

    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, raise_stop)
    try:
        yield
    except _Stop:
        print("modelhub is stopped before it was ready", flush=True)


@contextmanager
def _database(config: Config) -> Iterator[None]:
    """The embedded Postgres runs inside; nothing to do for one of its own."""
    if config.DATABASE_URL:
        yield
        return
    try:
        print(f"Postgres: embedded, in {postgres.home_of(config).folder}", flush=True)
        try:
            postgres.start(config)
        except postgres.PostgresError as error:
            raise NotReady(str(error)) from error
        yield
    finally:
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, signal.SIG_IGN)
        connections.close_all()
        postgres.stop(config)


def _prepare(config: Config) -> None:
    try:
        call_command("migrate", interactive=False, verbosity=0)
    except DatabaseError as error:
        raise NotReady(f"The database cannot be migrated: {str(error).strip()}") from error
    if static_files.collect():
        print("Static files: collected", flush=True)
    first_admin = first_start.make_first_admin(config)
    if first_admin:
        print(first_admin, flush=True)
    try:
        if first_start.wants_sample_models(config):
            print("Sample models: the store is empty, so some are trained (SAMPLE_MODELS=false skips this)", flush=True)
            _make_sample_models()
    except OSError as error:
        print(f"Sample models: {error.filename} cannot be read ({error.strerror}); change its rights", flush=True)
    try:
        call_command("discover", actor=SYSTEM)
    except CommandError as error:
        print(f"Discovery: {error}", flush=True)
    except SystemExit:
        pass  # it refused some models and said which
    connections.close_all()


def _make_sample_models() -> None:
    # A process of its own: what it imports to train must not stay in this one.
    made = subprocess.run(
        [sys.executable, "-m", "loaderd.lifeline", str(os.getpid()), *MANAGE, "demo_models"],
        cwd=PROJECT_DIR,
        env=_environment("samples"),
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if made.returncode != 0:
        print("Sample models: they could not be made, see above; going on without", flush=True)


def _environment(part: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in KEPT_FROM_PARTS}
    return kept | {"MODELHUB_PART": part, "PYTHONUNBUFFERED": "1"}


def _run(config: Config) -> None:
    manager = Manager()
    for name, command in COMMANDS.items():
        manager.add_part(name, command, env=_environment(name), cwd=str(PROJECT_DIR))
    watchers: list[Callable[[], None]] = [lambda: _announce_when_ready(manager, config)]
    if not config.DATABASE_URL:
        watchers.append(lambda: _keep_postgres(manager, config))
    manager.loop(beside=watchers)
    print("modelhub is stopped", flush=True)


def _announce_when_ready(manager: Manager, config: Config) -> None:
    parts: dict[str, Part] = {part.name: part for part in manager.parts}
    waiting = {
        "web": lambda: readiness.web_answers(config),
        "queue": readiness.queue_answers,
        "loaderd": lambda: readiness.loaderd_answers(config),
    }
    began = reminded = time.monotonic()
    while waiting:
        for name in list(waiting):
            if parts[name].pid is not None and waiting[name]():
                del waiting[name]
        if waiting and manager.stopping.wait(0.1):
            return
        if waiting and time.monotonic() - reminded > REMIND_SECONDS:
            reminded = time.monotonic()
            manager.say(f"not ready after {reminded - began:.0f} s: {', '.join(waiting)}; see the lines above")
    web = f"http://{readiness.reachable_host(config.WEB_HOST)}:{config.WEB_PORT}"
    inference = f"http://{readiness.reachable_host(config.INFERENCE_HOST)}:{config.INFERENCE_PORT}"
    grpc_host = readiness.reachable_host(config.GRPC_HOST or config.INFERENCE_HOST)
    grpc = f" gRPC {grpc_host}:{config.grpc_port}" if config.grpc_port else ""
    manager.announce(f"modelhub is ready: admin {web}/admin/ API {web}/api/models/ inference {inference}/v2{grpc}")


def _keep_postgres(manager: Manager, config: Config) -> None:
    delay_seconds: float | None = None
    while not manager.stopping.is_set():
        began = time.monotonic()
        try:
            _wait_while_postgres_runs(manager, config)
            what_happened = "Postgres ended"
        except postgres.PostgresError as error:
            what_happened = str(error)
        if manager.stopping.is_set():
            return
        delay_seconds = delay_after_death(time.monotonic() - began, delay_seconds)
        manager.say(f"{what_happened}; it starts again in {delay_seconds:g} s")
        if manager.stopping.wait(delay_seconds):
            return
        try:
            postgres.start(config)
        except (postgres.PostgresError, psycopg.Error, OSError) as error:
            manager.say(str(error).strip())


def _wait_while_postgres_runs(manager: Manager, config: Config) -> None:
    pid = postgres.postmaster_pid(config)
    while pid is not None and not manager.stopping.is_set() and not postgres.wait_for_end(pid, 0.5):
        pass
