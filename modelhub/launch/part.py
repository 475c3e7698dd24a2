"""One part of a running Modelhub: a program that is started again when it dies."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from honcho.process import Process

from modelhub.launch.restart import delay_after_death


class Part(Process):
    """Runs on a thread of its own, which lives as long as the part: the kernel ends a part with that thread."""

    def __init__(self, cmd: Sequence[str], **kwargs: Any) -> None:
        super().__init__(list(cmd), **kwargs)
        self._stopping = threading.Event()
        self._spawning = threading.RLock()  # a stop never misses a process that is just being made
        self._running: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """None while it is dead."""
        running = self._running
        return running.pid if running is not None and running.returncode is None else None

    def run(self, events: Any = None, ignore_signals: bool = False) -> None:
        """Starts it, relays its output, starts it again; returns when it ended after `stop`."""
        self._events = events
        delay_seconds: float | None = None
        while True:
            began = time.monotonic()
            try:
                returncode = self._run_once()
            except OSError as error:
                self._say(f"{self.name} cannot be started: {error}")
                returncode = None
            if self._stopping.is_set():
                break
            delay_seconds = delay_after_death(time.monotonic() - began, delay_seconds)
            if returncode is not None:
                self._say(f"{self.name} ended ({ending(returncode)}); it starts again in {delay_seconds:g} s")
            if self._stopping.wait(delay_seconds):
                break
        self._send_message({"returncode": returncode}, type="stop")

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """Asks its first process to end, which ends its own; SIGKILL ends them all."""
        self._stopping.set()
        with self._spawning:
            if self.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    (os.killpg if signum == signal.SIGKILL else os.kill)(self.pid, signum)

    def _run_once(self) -> int | None:
        with self._spawning:
            if self._stopping.is_set():
                return None
            child = subprocess.Popen(
                [sys.executable, "-m", "loaderd.lifeline", str(os.getpid()), *self.cmd],
                env=self.env,
                cwd=self.cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C is for the launcher, which stops the parts in good order
            )
            self._running = child
        self._send_message({"pid": child.pid}, type="start")
        relay = threading.Thread(target=self._relay, args=(child,), daemon=True)
        relay.start()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        # Not reaped yet, so its number is still its group's: what it left behind ends here.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        returncode = child.wait()
        relay.join(timeout=2.0)
        return returncode

    def _relay(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None
        with child.stdout:
            for line in child.stdout:
                self._send_message(line)

    def _say(self, text: str) -> None:
        self._send_message(f"{text}\n")


def ending(returncode: int) -> str:
    """How a process ended, in words."""
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:  # a real-time signal
        return f"signal {-returncode}"
    return f"{name}; perhaps out of memory" if name == "SIGKILL" else name
