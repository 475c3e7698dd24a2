"""A process that is tied to its parent ends with it."""

from __future__ import annotations

import subprocess
import sys

import psutil

from modelhub.conf import PROJECT_DIR
from tests.deadline import wait_until
from tests.environment import for_child

STARTS_A_TIED_CHILD = """
import os, subprocess, sys, time
child = subprocess.Popen(
    [sys.executable, "-m", "loaderd.lifeline", str(os.getpid()), "sleep", "600"], start_new_session=True
)
print(child.pid, flush=True)
time.sleep(600)
"""


def run(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=PROJECT_DIR, env=for_child(), stdout=subprocess.PIPE, text=True
    )


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_it_ends_when_its_parent_is_killed() -> None:
    with run("-c", STARTS_A_TIED_CHILD) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        wait_until(lambda: psutil.Process(pid).name() == "sleep")
        parent.kill()
        wait_until(lambda: is_gone(pid))


def test_it_ends_at_once_when_its_parent_was_gone_before() -> None:
    with run("-m", "loaderd.lifeline", "999999999", "sleep", "600") as orphan:
        assert orphan.wait(timeout=20) == -9


def test_it_becomes_the_program_it_is_given() -> None:
    parent = str(psutil.Process().pid)
    with run("-m", "loaderd.lifeline", parent, sys.executable, "-c", "raise SystemExit(7)") as child:
        assert child.wait(timeout=20) == 7
