"""The embedded Postgres starts, stops, and gets over whatever died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest

from modelhub import postgres
from modelhub.conf import PROJECT_DIR, Config
from modelhub.postgres import server
from tests.deadline import wait_until
from tests.environment import for_child


def query(config: Config, statement: str) -> object:
    with psycopg.connect(postgres.embedded_database_url(config)) as connection:
        row = connection.execute(statement).fetchone()
        return row[0] if row else None


def starter(config: Config, after: str) -> list[str]:
    """A program that starts the server of these settings and then does `after`."""
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from modelhub import postgres\n"
        "from modelhub.conf import Config\n"
        f"config = Config(MODELHUB_STATE_DIR=Path({str(config.MODELHUB_STATE_DIR)!r}), DATABASE_URL='')\n"
        "print(postgres.start(config), flush=True)\n"
        f"{after}\n"
    )
    return [sys.executable, "-c", code]


def test_it_starts_and_answers_and_keeps_its_data_over_a_stop(config: Config) -> None:
    assert not postgres.is_running(config)
    assert postgres.start(config) is True
    assert postgres.is_running(config)
    assert query(config, "SELECT current_database()") == "modelhub"
    assert query(config, "SHOW listen_addresses") == ""
    with psycopg.connect(postgres.embedded_database_url(config)) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    assert postgres.stop(config) is True
    assert not postgres.is_running(config)
    assert postgres.stop(config) is False
    assert postgres.start(config) is True
    assert query(config, "SELECT answer FROM kept") == 42


def test_a_second_start_attaches(config: Config) -> None:
    postgres.start(config)
    pid = postgres.postmaster_pid(config)
    assert postgres.start(config) is False
    assert postgres.postmaster_pid(config) == pid


def test_starters_at_the_same_time_make_one_server(config: Config) -> None:
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(postgres.start(config))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False, False, False, True]


def test_only_its_owner_and_root_may_enter(config: Config) -> None:
    postgres.start(config)
    home = postgres.home_of(config)
    for folder in (home.folder, home.data_dir, home.socket_dir):
        assert folder.stat().st_mode & 0o077 == 0


def test_the_address_is_the_same_before_and_after_the_first_start(config: Config) -> None:
    before = postgres.embedded_database_url(config)
    postgres.start(config)
    assert postgres.embedded_database_url(config) == before


def test_it_survives_kill_9_of_its_starter_and_the_next_start_attaches(config: Config) -> None:
    killed = subprocess.run(
        starter(config, "os.kill(os.getpid(), signal.SIGKILL)"),
        cwd=PROJECT_DIR,
        env=for_child(),
        capture_output=True,
        text=True,
        check=False,
    )
    if "root-homes" in str(postgres.home_of(config).folder):
        pytest.skip("the child chose another home")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    pid = postgres.postmaster_pid(config)
    assert pid is not None
    assert postgres.start(config) is False
    assert postgres.postmaster_pid(config) == pid


def test_a_killed_server_starts_again_with_its_data(config: Config) -> None:
    postgres.start(config)
    pid = postgres.postmaster_pid(config)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: postgres.postmaster_pid(config) is None)
    assert not postgres.is_running(config)
    assert postgres.start(config) is True
    assert query(config, "SELECT 1") == 1


def test_a_pid_file_that_names_a_foreign_process_is_stale(config: Config) -> None:
    postgres.start(config)
    home = postgres.home_of(config)
    pid_file = home.data_dir / "postmaster.pid"
    content = pid_file.read_text().split("\n", 1)[1]
    postgres.stop(config)
    # After a reboot any process may have the old pid, even one of the same user.
    as_owner: dict[str, int] = {"user": home.uid, "group": home.gid} if os.getuid() == 0 else {}
    with subprocess.Popen(["sleep", "600"], **as_owner) as foreign:  # type: ignore[call-overload]
        try:
            pid_file.write_text(f"{foreign.pid}\n{content}")
            os.chown(pid_file, home.uid, home.gid)
            assert postgres.postmaster_pid(config) is None
            assert postgres.stop(config) is False
            assert postgres.start(config) is True
            assert foreign.poll() is None
        finally:
            foreign.kill()


def test_a_killed_initdb_leaves_nothing_that_disturbs(config: Config) -> None:
    postgres.start(config)
    postgres.stop(config)
    home = postgres.home_of(config)
    home.data_dir.rename(home.folder / "data.unfinished")
    (home.folder / "data.unfinished" / "PG_VERSION").unlink()
    assert postgres.start(config) is True


def test_a_server_that_cannot_start_says_why(config: Config) -> None:
    with pytest.raises(postgres.PostgresError, match="invalid value for parameter"):
        postgres.start(config, settings={"shared_buffers": "much"})


def test_settings_of_other_servers_in_the_shell_change_nothing(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGDATA", "/nonexistent")
    monkeypatch.setenv("PGPORT", "1")
    assert postgres.start(config) is True
    monkeypatch.undo()
    assert postgres.home_of(config).data_dir.is_dir()


def test_a_long_path_gets_a_short_socket(open_folder: Path) -> None:
    long = Config(MODELHUB_STATE_DIR=open_folder / ("x" * 90), DATABASE_URL="")
    try:
        assert len(str(postgres.home_of(long).socket_dir)) < 90
        assert postgres.start(long) is True
        assert query(long, "SELECT 1") == 1
    finally:
        postgres.stop(long)
        postgres.home_of(long).socket_dir.rmdir()


def test_a_stop_waits_for_a_start_that_has_no_server_yet(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    is_starting, may_go_on = threading.Event(), threading.Event()
    launch = server._launch

    def launch_late(*args: Any) -> None:
        is_starting.set()
        assert may_go_on.wait(30)
        launch(*args)

    monkeypatch.setattr(server, "_launch", launch_late)
    starter = threading.Thread(target=postgres.start, args=[config])
    starter.start()
    assert is_starting.wait(60)
    stopped: list[bool] = []
    stopper = threading.Thread(target=lambda: stopped.append(postgres.stop(config)))
    stopper.start()
    stopper.join(0.5)
    assert stopper.is_alive()
    may_go_on.set()
    starter.join(60)
    stopper.join(60)
    assert stopped == [True]
    assert not postgres.is_running(config)
