"""The process manager: parts come back when they die, and none is left after a stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from modelhub.conf import PROJECT_DIR
from tests.deadline import wait_until
from tests.environment import for_child

LAUNCHER = """
import os, signal, sys
from modelhub.launch import manager as module
from modelhub.launch.manager import Manager
module.STOP_TIMEOUT_SECONDS = float(sys.argv[1])
manager = Manager()
for number, code in enumerate(sys.argv[2:]):
    manager.add_part(f"part{number}", [sys.executable, "-c", code], env=dict(os.environ), cwd=os.getcwd())
manager.loop()
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as `up` does: who asks again while it ends does not interrupt the end
print("all stopped", flush=True)
"""
SLEEPS = "import os, time; print('up', os.getpid(), flush=True); time.sleep(600)"
IGNORES_SIGTERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPS
LEAVES_A_CHILD = (
    "import subprocess; child = subprocess.Popen(['sleep', '600']); print('child', child.pid, flush=True); " + SLEEPS
)
ENDS_AT_ONCE = "print('born', flush=True); raise SystemExit(3)"


class Launcher:
    """A process that runs a Manager with the given parts; its output goes to a file."""

    def __init__(self, folder: Path, *parts: str, stop_timeout_seconds: float = 10.0) -> None:
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", LAUNCHER, str(stop_timeout_seconds), *parts],
                cwd=PROJECT_DIR,
                env=for_child(PYTHONUNBUFFERED="1"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        return self.log.read_text()

    def pids(self, word: str) -> list[int]:
        """The pids that parts printed after `word`, oldest first."""
        lines = (line.split("| ")[-1].split() for line in self.output.splitlines())
        return [int(words[1]) for words in lines if len(words) == 2 and words[0] == word]

    def wait_for(self, word: str, count: int = 1) -> list[int]:
        wait_until(lambda: len(self.pids(word)) >= count, what=f"{count} × {word!r}")
        return self.pids(word)

    def stop(self, signum: int = signal.SIGTERM) -> int:
        self.process.send_signal(signum)
        return self.process.wait(timeout=30)


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[object]:
    made: list[Launcher] = []

    def _launch(*parts: str, **options: float) -> Launcher:
        made.append(Launcher(tmp_path, *parts, **options))
        return made[-1]

    yield _launch
    for launcher in made:
        launcher.process.kill()
        launcher.process.wait()


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_ends_every_part_and_exits_with_0(launch, signum: int) -> None:
    launcher = launch(SLEEPS, SLEEPS)
    pids = launcher.wait_for("up", 2)
    assert launcher.stop(signum) == 0
    assert all(is_gone(pid) for pid in pids)
    assert "all stopped" in launcher.output


def test_a_part_that_dies_starts_again_and_the_others_go_on(launch) -> None:
    launcher = launch(SLEEPS, SLEEPS)
    first, second = launcher.wait_for("up", 2)
    os.kill(first, signal.SIGKILL)
    pids = launcher.wait_for("up", 3)
    assert not is_gone(pids[2])
    assert not is_gone(second)
    assert "ended (SIGKILL; perhaps out of memory)" in launcher.output
    assert launcher.stop() == 0
    assert all(is_gone(pid) for pid in pids)


def test_a_part_that_ends_at_once_is_not_started_in_a_tight_loop(launch) -> None:
    launcher = launch(ENDS_AT_ONCE)
    wait_until(lambda: launcher.output.count("born") >= 2)
    assert "ended (exit status 3); it starts again in 0.5 s" in launcher.output
    wait_until(lambda: "it starts again in 1 s" in launcher.output)
    assert launcher.stop() == 0


def test_a_part_that_ignores_sigterm_is_killed_after_the_bound(launch) -> None:
    launcher = launch(IGNORES_SIGTERM, stop_timeout_seconds=1.0)
    (pid,) = launcher.wait_for("up")
    assert launcher.stop() == 0
    assert is_gone(pid)
    assert "still running after 1 s and killed: part0" in launcher.output


def test_asking_twice_does_not_wait_for_the_bound(launch) -> None:
    launcher = launch(IGNORES_SIGTERM, stop_timeout_seconds=600.0)
    (pid,) = launcher.wait_for("up")
    launcher.process.send_signal(signal.SIGINT)
    wait_until(lambda: "SIGINT: stopping" in launcher.output)

    def asked_again() -> bool:
        launcher.process.send_signal(signal.SIGINT)
        return "asked again" in launcher.output

    wait_until(asked_again)
    assert launcher.process.wait(timeout=30) == 0
    assert is_gone(pid)


def test_what_a_dead_part_left_behind_ends_with_it(launch) -> None:
    launcher = launch(LEAVES_A_CHILD)
    (child,) = launcher.wait_for("child")
    (pid,) = launcher.wait_for("up")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: is_gone(child))
    launcher.wait_for("up", 2)
    assert launcher.stop() == 0
    assert all(is_gone(pid) for pid in launcher.pids("child"))


def test_no_part_survives_kill_9_of_the_launcher(launch) -> None:
    launcher = launch(SLEEPS, IGNORES_SIGTERM)
    pids = launcher.wait_for("up", 2)
    launcher.process.kill()
    launcher.process.wait()
    wait_until(lambda: all(is_gone(pid) for pid in pids))


def test_it_stops_when_nobody_reads_its_output(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, "5", SLEEPS, "while True: print('noise', flush=True)"],
        cwd=PROJECT_DIR,
        env=for_child(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as launcher:
        assert launcher.stdout is not None
        pid = next(int(line.split()[-1]) for line in launcher.stdout if "| up " in line)
        launcher.stdout.close()
        launcher.wait(timeout=30)
        assert is_gone(pid)
