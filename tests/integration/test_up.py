"""`manage.py up`: starts on a bare folder, starts again fast, leaves nothing, and says what is wrong in a line."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from modelhub import postgres
from tests.deadline import wait_until
from tests.stack import PASSWORD, Stack, fresh_stack

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("up")]


@pytest.fixture
def own_stack() -> Iterator[Stack]:
    with fresh_stack() as stack:
        yield stack


def test_it_starts_serves_the_admin_and_stops_with_nothing_left(own_stack: Stack) -> None:
    own_stack.start()
    with httpx.Client(base_url=own_stack.web, follow_redirects=True, timeout=30) as browser:
        login = browser.get("/admin/login/")
        token = browser.cookies["csrftoken"]
        page = browser.post(
            "/admin/login/?next=/admin/",
            data={"username": "ada", "password": PASSWORD, "csrfmiddlewaretoken": token},
            headers={"Referer": own_stack.web},
        )
        assert login.status_code == page.status_code == 200
        assert "Log out" in page.text or "logout" in page.text
        stylesheet = page.text.split('rel="stylesheet"')[0].rsplit('href="', 1)[-1].split('"')[0]
        assert browser.get(stylesheet).status_code == 200, "static files are served"
    family = own_stack.family()
    assert len(family) > 5
    assert own_stack.postgres_processes(), "it is one of the family"
    assert own_stack.stop(signal.SIGINT) == 0
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []
    assert own_stack.family() == []


def test_a_second_start_is_fast_and_keeps_the_admin(own_stack: Stack) -> None:
    own_stack.start()
    own_stack.stop()
    began = time.monotonic()
    own_stack.start()
    assert time.monotonic() - began < 30
    assert own_stack.manage("create_token", "ada").stdout.strip()
    assert own_stack.stop() == 0


def test_kill_9_of_up_leaves_no_part_and_the_next_start_works(own_stack: Stack) -> None:
    own_stack.start()
    own_stack.kill()

    def only_postgres() -> bool:
        return set(own_stack.family()) <= set(own_stack.postgres_processes())

    wait_until(only_postgres, 30, "web, queue and loaderd end with their parent")
    own_stack.start()
    assert own_stack.stop() == 0
    assert own_stack.family() == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root's Postgres runs as another user")
def test_in_a_folder_that_only_root_may_enter_postgres_lives_elsewhere_and_ends_too() -> None:
    with fresh_stack(mode=0o700) as stack:
        stack.start()
        home = postgres.home_of(stack.config)
        assert not home.folder.is_relative_to(stack.state_dir)
        assert stack.postgres_processes()
        assert stack.stop() == 0
        assert stack.postgres_processes() == []
        assert stack.family() == []
    assert not home.folder.exists(), "this test leaves nothing in the folder that it shares with real installations"


def one_line_error(stack: Stack) -> str:
    done = stack.manage("up", check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    return (done.stdout + done.stderr).strip().splitlines()[-1]


def test_a_port_in_use_is_one_clear_line(own_stack: Stack) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", own_stack.web_port))
        taken.listen()
        line = one_line_error(own_stack)
    assert str(own_stack.web_port) in line
    assert "WEB_PORT" in line


def test_a_broken_database_url_is_one_clear_line(own_stack: Stack) -> None:
    own_stack.environment["DATABASE_URL"] = "postgres://nobody:nothing@127.0.0.1:1/none"
    assert "DATABASE_URL" in one_line_error(own_stack)
    own_stack.environment["DATABASE_URL"] = "mysql://x"
    assert "DATABASE_URL" in one_line_error(own_stack)


def test_a_bad_setting_is_one_clear_line(own_stack: Stack) -> None:
    own_stack.environment["MAX_MEMORY_USAGE_MB"] = "much"
    line = one_line_error(own_stack)
    assert "MAX_MEMORY_USAGE_MB" in line
    assert "much" in line


def test_a_store_that_cannot_be_made_is_one_clear_line(own_stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    own_stack.environment["MODELS_DIR"] = str(tmp_path / "file" / "store")
    assert "MODELS_DIR" in one_line_error(own_stack)
