"""`manage.py up`: starts on a bare folder, starts again fast, leaves nothing, and says what is wrong in a line."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.deadline import wait_until
from tests.stack import PASSWORD, Stack

pytestmark = [pytest.mark.timeout(400), pytest.mark.xdist_group("up")]


@pytest.fixture
def own_stack(tmp_path: Path):
    (tmp_path / "store").mkdir()
    stack = Stack(tmp_path / "var", tmp_path / "store")
    yield stack
    if stack.process is not None and stack.process.poll() is None:
        stack.kill()
    for process in stack.family():
        process.kill()


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
    assert own_stack.stop(signal.SIGINT) == 0
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []
    assert own_stack.family() == []


def test_a_second_start_is_fast_and_keeps_the_admin(own_stack: Stack) -> None:
    own_stack.start()
    own_stack.stop()
    began = time.monotonic()
    own_stack.output.clear()
    own_stack.start()
    assert time.monotonic() - began < 30
    assert own_stack.manage("create_token", "ada").stdout.strip()
    assert own_stack.stop() == 0


def test_kill_9_of_up_leaves_no_part_and_the_next_start_works(own_stack: Stack) -> None:
    own_stack.start()
    own_stack.kill()

    def only_postgres() -> bool:
        return all("postgres" in " ".join(p.cmdline()) for p in own_stack.family())

    wait_until(only_postgres, 30, "web, queue and loaderd end with their parent")
    own_stack.output.clear()
    own_stack.start()
    assert own_stack.stop() == 0
    assert own_stack.family() == []


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
