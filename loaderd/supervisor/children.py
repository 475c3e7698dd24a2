"""Processes that the supervisor watches: exact exit codes, kills that cannot hit a stranger.

A pidfd stands for one process for ever, so a reused pid is never signalled; it becomes readable when the
process ends. The supervisor is a subreaper: model processes, born of a zygote, become its own children.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from loaderd import resources
from loaderd.protocol import EXIT_DEVICE_LOST
from loaderd.supervisor.environment import clean_environment


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: status, or the signal that ended it.

    out_of_memory: the kernel's OOM killer did it. asked_for: the signal was ours.
    """

    status: int | None = None
    signal: int | None = None
    out_of_memory: bool = False
    asked_for: bool = False

    @property
    def prose(self) -> str:
        """For a sentence: "was ended by SIGSEGV"."""
        if self.status == EXIT_DEVICE_LOST:
            return (
                f"exited with status {self.status}: its GPU reported an error after which no call of that process can "
                "succeed, and a new process can"
            )
        if self.signal is None:
            return "ended, nobody knows how" if self.status is None else f"exited with status {self.status}"
        try:
            name = signal.Signals(self.signal).name
        except ValueError:  # a real-time signal between the two that have names
            name = f"signal {self.signal}"
        if self.out_of_memory:
            return f"was ended by {name} of the kernel's OOM killer (out of memory)"
        if self.signal == signal.SIGKILL and not self.asked_for:
            return f"was ended by {name}, which loaderd did not send"
        return f"was ended by {name}"


class KernelKills:
    """Tells whether the kernel's OOM killer ended a process, by its own count of such kills.

    The count names no process, so it is compared with what it was a moment before the death, and each counted kill
    explains one death.
    """

    def __init__(
        self,
        count: Callable[[], int | None] = resources.oom_kills,
        *,
        window_seconds: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._count = count
        self._window_seconds = window_seconds
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def look(self) -> None:
        """To be called about once a second: keeps the count of a moment ago."""
        kills = self._count()
        if kills is None:
            return
        now = self._clock()
        self._seen.append((now, kills))
        while len(self._seen) > 1 and self._seen[1][0] < now - self._window_seconds:
            self._seen.popleft()

    def explain_one(self) -> bool:
        """Whether a kill was counted lately that no death before this one was explained by."""
        kills = self._count()
        if kills is None or not self._seen or kills <= self._seen[0][1]:
            return False
        self._seen = deque((at, count + 1) for at, count in self._seen)
        return True


kernel_kills = KernelKills()
"""One for the supervisor: it is the parent of all that it watches."""


_watched: set[int] = set()
"""Pids that have a Child: nobody else may reap them."""


class Child:
    """One watched process. `exited` resolves to its Exit once it is reaped: from then on its memory is back."""

    def __init__(self, pid: int, popen: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._popen = popen
        self._kill_sent = False
        self._pidfd = os.pidfd_open(pid)
        _watched.add(pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    @property
    def is_alive(self) -> bool:
        return not self.exited.done()

    def signal(self, number: int) -> None:
        """Signals the process unless it has ended."""
        if self.is_alive:
            self._kill_sent |= number == signal.SIGKILL
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    async def kill(self) -> Exit:
        """Ends the process now, with what it started (its session's group), and waits until it is reaped."""
        self.signal(signal.SIGKILL)
        return await asyncio.shield(self.exited)

    def _reap(self) -> None:
        self._end_group()
        try:
            result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
            if result is None:
                return
            by_itself = result.si_code == os.CLD_EXITED
            ended = Exit(status=result.si_status) if by_itself else self._killed(result.si_status)
        except ChildProcessError:  # it is gone, and somebody else took its exit code
            ended = Exit()
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        _watched.discard(self.pid)
        if self._popen is not None:  # it would wait for the pid itself otherwise
            self._popen.returncode = ended.status if ended.signal is None else -ended.signal
        if not self.exited.done():
            self.exited.set_result(ended)

    def _killed(self, number: int) -> Exit:
        strange = number == signal.SIGKILL and not self._kill_sent
        return Exit(signal=number, out_of_memory=strange and kernel_kills.explain_one(), asked_for=self._kill_sent)

    def _end_group(self) -> None:
        """Ends what the process started in its session and left behind; its pid is still ours, being unreaped."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(self.pid) == self.pid != os.getpgrp():
                os.killpg(self.pid, signal.SIGKILL)


def spawn(
    arguments: Sequence[str],
    *,
    pass_fds: Sequence[int],
    log_fd: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> Child:
    """Starts a program of this package in a session of its own. environment: None for the clean one.

    Called on the supervisor's main thread only: the kernel ends the child with the thread that made it.
    """
    popen = subprocess.Popen(
        arguments,
        pass_fds=tuple(pass_fds),
        stdin=subprocess.DEVNULL,
        stdout=log_fd,
        stderr=log_fd,
        env=clean_environment() if environment is None else environment,
        start_new_session=True,
    )
    return Child(popen.pid, popen)


def reap_strangers() -> None:
    """Reaps descendants that were adopted (what a model started and left behind) and have ended.

    Not to be called while a zygote forks: its process is ours before we know its pid.
    """
    with contextlib.suppress(ChildProcessError):
        while (waiting := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if waiting.si_pid in _watched:
                return  # its own watcher reaps it; the rest is for the next round
            os.waitpid(waiting.si_pid, os.WNOHANG)
