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
from collections.abc import Sequence
from dataclasses import dataclass

from loaderd.supervisor.environment import clean_environment


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: status, or the signal that ended it."""

    status: int | None = None
    signal: int | None = None

    @property
    def prose(self) -> str:
        """For a sentence: "was ended by SIGKILL (perhaps out of memory)"."""
        if self.signal is None:
            return "ended, nobody knows how" if self.status is None else f"exited with status {self.status}"
        try:
            name = signal.Signals(self.signal).name
        except ValueError:  # a real-time signal between the two that have names
            name = f"signal {self.signal}"
        hint = " (perhaps out of memory)" if self.signal == signal.SIGKILL else ""
        return f"was ended by {name}{hint}"


_watched: set[int] = set()
"""Pids that have a Child: nobody else may reap them."""


class Child:
    """One watched process. `exited` resolves to its Exit once it is reaped: from then on its memory is back."""

    def __init__(self, pid: int, popen: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._popen = popen
        self._pidfd = os.pidfd_open(pid)
        _watched.add(pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    @property
    def is_alive(self) -> bool:
        return not self.exited.done()

    def signal(self, number: int) -> None:
        """Signals the process unless it has ended."""
        if self.is_alive:
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
            ended = Exit(status=result.si_status) if by_itself else Exit(signal=result.si_status)
        except ChildProcessError:  # it is gone, and somebody else took its exit code
            ended = Exit()
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        _watched.discard(self.pid)
        if self._popen is not None:  # it would wait for the pid itself otherwise
            self._popen.returncode = ended.status if ended.signal is None else -ended.signal
        if not self.exited.done():
            self.exited.set_result(ended)

    def _end_group(self) -> None:
        """Ends what the process started in its session and left behind; its pid is still ours, being unreaped."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(self.pid) == self.pid != os.getpgrp():
                os.killpg(self.pid, signal.SIGKILL)


def spawn(arguments: Sequence[str], *, pass_fds: Sequence[int], log_fd: int | None = None) -> Child:
    """Starts a program of this package with the clean environment, in a session of its own.

    Called on the supervisor's main thread only: the kernel ends the child with the thread that made it.
    """
    popen = subprocess.Popen(
        arguments,
        pass_fds=tuple(pass_fds),
        stdin=subprocess.DEVNULL,
        stdout=log_fd,
        stderr=log_fd,
        env=clean_environment(),
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
