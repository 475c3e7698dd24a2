"""Starts and stops the embedded Postgres. Several starters at once, dead starters and dead servers are all fine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
from psycopg import sql

from modelhub.conf import Config
from modelhub.postgres.binaries import binaries
from modelhub.postgres.home import DATABASE, PORT, USER, Home, PostgresError, blocking_folder, home_of

START_TIMEOUT_SECONDS = 120  # crash recovery of a busy database takes a while
LEFTOVER_TIMEOUT_SECONDS = 10
CONNECT_TIMEOUT_SECONDS = 5
SERVER_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "log_checkpoints": "off",
}
CONNECTIONS_BESIDE_WEB = 64  # queue, loaderd, commands, tests


def start(config: Config, settings: Mapping[str, str] | None = None) -> bool:
    """Makes the embedded server answer; True when this call started it, False when it ran already.

    settings: Postgres settings beside our own. Raises PostgresError with the reason and the server's last words.
    """
    home = home_of(config)
    _make_folders(home)
    with _locked(home):
        if _answers(home, DATABASE):
            return False
        started = False
        if postmaster_pid(config) is None:
            _clear_what_a_dead_server_left(home)
            programs = binaries(home)
            if not home.data_dir.exists():
                _initialise(home, programs)
            _launch(home, programs, {**_server_settings(config), **(settings or {})})
            started = True
        _wait_until_it_answers(home, config)
        _make_database(home)
        return started


def stop(config: Config, timeout_seconds: float = 20.0) -> bool:
    """Ends the server, open connections included; False when none ran. Raises PostgresError when it does not end."""
    # Twice: a starter that waits for its server's answer gives up, and one that has none yet is waited for.
    has_ended = _stop_server(config, timeout_seconds)
    home = home_of(config)
    if not home.folder.exists():
        return has_ended
    try:
        with _locked(home):
            return _stop_server(config, timeout_seconds) or has_ended
    except PermissionError as error:
        raise PostgresError(_belongs_to_another(home)) from error


def _stop_server(config: Config, timeout_seconds: float) -> bool:
    pid = postmaster_pid(config)
    if pid is None:
        return False
    # Fast shutdown, then immediate shutdown (recovers at the next start), then no choice.
    for signum, seconds in ((signal.SIGINT, timeout_seconds), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)):
        if _end(pid, signum, seconds):
            return True
    raise PostgresError(f"The embedded Postgres (pid {pid}) does not end, not even by SIGKILL.")


def is_running(config: Config) -> bool:
    """Whether a connection is answered: the only proof of life that a zombie cannot give."""
    return _answers(home_of(config), DATABASE)


def postmaster_pid(config: Config) -> int | None:
    """The pid of the live server of this home, or None; a pid file alone proves nothing."""
    home = home_of(config)
    try:
        pid = int((home.data_dir / "postmaster.pid").read_text().split("\n", 1)[0])
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except PermissionError as error:
        raise PostgresError(_belongs_to_another(home)) from error
    return pid if _works_for(home, pid) else None


def wait_for_end(pid: int, timeout_seconds: float) -> bool:
    """Whether that process ended within the time."""
    return _end(pid, 0, timeout_seconds)


def _make_folders(home: Home) -> None:
    if os.getuid() not in (0, home.uid):
        raise PostgresError(_belongs_to_another(home))
    for parent in reversed(home.folder.parents):
        with contextlib.suppress(FileExistsError):
            parent.mkdir()
            parent.chmod(0o755)  # whatever the umask is: the server's user passes here
    blocked_by = blocking_folder(home.folder, home.uid, home.gid)
    if blocked_by is not None:
        raise PostgresError(
            f"The user with uid {home.uid}, who owns the embedded Postgres in {home.folder}, may not enter "
            f"{blocked_by}; allow it (chmod o+x {blocked_by}) or set DATABASE_URL."
        )
    for folder in (home.folder, home.socket_dir):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            if os.getuid() == 0:
                os.chown(folder, home.uid, home.gid)
        found = folder.lstat()
        if os.getuid() == 0 and found.st_uid == 0 and not folder.is_symlink():
            # A starter was killed between making it and giving it away.
            os.chown(folder, home.uid, home.gid, follow_symlinks=False)
        elif found.st_uid != home.uid or folder.is_symlink() or found.st_mode & 0o077:
            raise PostgresError(
                f"{folder} must be a folder of uid {home.uid} that nobody else may enter; move it away and start again."
            )


def _belongs_to_another(home: Home) -> str:
    return (
        f"The embedded Postgres in {home.folder} belongs to uid {home.uid}; run Modelhub as that user or as root, "
        "or set DATABASE_URL."
    )


@contextlib.contextmanager
def _locked(home: Home) -> Iterator[None]:
    descriptor = os.open(home.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if os.getuid() == 0:
            os.fchown(descriptor, home.uid, home.gid)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _run(home: Home, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a program of Postgres as the server's user, with an environment that holds nothing of ours."""
    as_user: dict[str, object] = {}
    if os.getuid() == 0:
        as_user = {"user": home.uid, "group": home.gid, "extra_groups": []}
    return subprocess.run(
        [str(part) for part in command],
        cwd=home.folder,
        env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin", "HOME": str(home.folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        umask=0o077,
        **as_user,  # type: ignore[call-overload]
    )


def _initialise(home: Home, programs: Path) -> None:
    """initdb in a folder of another name, so that a killed start leaves no half of a database."""
    unfinished = home.folder / "data.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    made = _run(
        home, programs / "initdb", "-D", unfinished, "-U", USER, "--auth=trust", "--encoding=UTF8", "--no-instructions"
    )
    if made.returncode != 0:
        raise PostgresError(f"initdb failed in {home.folder}: {_last_lines(made.stdout)}")
    unfinished.rename(home.data_dir)


def _server_settings(config: Config) -> dict[str, str]:
    web_pools = config.WEB_WORKERS * 2 * config.WEB_THREADS
    return {**SERVER_SETTINGS, "max_connections": str(web_pools + CONNECTIONS_BESIDE_WEB)}


def _launch(home: Home, programs: Path, settings: Mapping[str, str]) -> None:
    options = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
    launched = _run(
        home,
        programs / "pg_ctl",
        "start",
        "--no-wait",  # its own waiting takes a zombie for a server
        f"--pgdata={home.data_dir}",
        f"--log={home.log_file}",
        f"--options=-k '{home.socket_dir}' -p {PORT} {options}",
    )
    if launched.returncode != 0:
        raise PostgresError(f"pg_ctl failed: {_last_lines(launched.stdout)}")


def _wait_until_it_answers(home: Home, config: Config) -> None:
    began = time.monotonic()
    while not _answers(home, "postgres"):
        waited = time.monotonic() - began
        if waited > 2.0 and postmaster_pid(config) is None:
            raise PostgresError(f"The embedded Postgres ended at its start: {_log_tail(home)}")
        if waited > START_TIMEOUT_SECONDS:
            raise PostgresError(
                f"The embedded Postgres (pid {postmaster_pid(config)}) does not answer after {waited:.0f} s; "
                f"see {home.log_file}: {_log_tail(home)}"
            )
        time.sleep(0.02)


def _connect(home: Home, database: str) -> psycopg.Connection:
    return psycopg.connect(
        host=str(home.socket_dir),
        port=PORT,
        user=USER,
        dbname=database,
        autocommit=True,
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        requirepeer=home.user_name or "",
    )


def _answers(home: Home, database: str) -> bool:
    try:
        _connect(home, database).close()
    except psycopg.OperationalError:
        return False
    return True


def _make_database(home: Home) -> None:
    with _connect(home, "postgres") as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone() is None:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))


def _clear_what_a_dead_server_left(home: Home) -> None:
    """Ends backends that outlived their server, then removes its lock files.

    Postgres would take them for a live server when its process is a zombie still, or when another process
    got its pid. Removing them while a backend still writes would corrupt the data: nobody may be left first.
    """
    deadline = time.monotonic() + LEFTOVER_TIMEOUT_SECONDS
    while leftovers := _processes_of(home):
        if time.monotonic() > deadline:
            for pid in leftovers:
                _end(pid, signal.SIGKILL, 5.0)
            break
        time.sleep(0.05)
    for stale in (home.data_dir / "postmaster.pid", *home.socket_dir.glob(".s.PGSQL.*")):
        stale.unlink(missing_ok=True)


def _processes_of(home: Home) -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and _works_for(home, int(name))]


def _works_for(home: Home, pid: int) -> bool:
    """Whether that process is alive and works in the data folder, as every process of this server does."""
    link = f"/proc/{pid}/cwd"
    try:
        if os.stat(f"/proc/{pid}").st_uid != home.uid:
            return False
        return os.readlink(link) == str(home.data_dir)
    except PermissionError:
        # Root of a container may lack the right to look (CAP_SYS_PTRACE); the processes' own user has it.
        return os.getuid() == 0 and _run(home, "readlink", link).stdout.strip() == str(home.data_dir)
    except OSError:  # gone, or a zombie
        return False


def _end(pid: int, signum: int, timeout_seconds: float) -> bool:
    """Sends a signal (0: none); whether the process ended in time, which the kernel tells also of a zombie."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        if signum:
            signal.pidfd_send_signal(descriptor, signum)
        watch = select.poll()
        watch.register(descriptor, select.POLLIN)
        return bool(watch.poll(timeout_seconds * 1000))
    except ProcessLookupError:
        return True
    finally:
        os.close(descriptor)


def _log_tail(home: Home) -> str:
    try:
        return _last_lines(home.log_file.read_text(errors="replace"))
    except FileNotFoundError:
        return f"it left no log in {home.log_file}"


def _last_lines(text: str) -> str:
    return " | ".join(text.strip().splitlines()[-5:]) or "no output"
