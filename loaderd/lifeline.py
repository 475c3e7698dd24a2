"""What ties processes together: prctl calls. Standard library only; Linux."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38


def _prctl(option: int, value: int) -> None:
    """Raises OSError when the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def become_subreaper() -> None:
    """Makes this process the parent of its descendants whose parents end, so that it gets their exit codes."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def forbid_new_privileges() -> None:
    """Makes set-user-id programs useless to this process and its children, for good."""
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def die_with_parent(expected_parent_pid: int, signum: int = signal.SIGKILL) -> None:
    """Asks the kernel to send `signum` to this process when its parent is gone.

    Called in the child, after any change of user (that clears the request) and, where a subreaper adopts
    the child, once it is adopted. When the parent died before the call, the signal is sent at once.
    The kernel watches the thread that made the child: make it on a thread that lives as long as the parent.
    Raises OSError when the kernel refuses.
    """
    _prctl(PR_SET_PDEATHSIG, int(signum))
    if os.getppid() != expected_parent_pid:
        os.kill(os.getpid(), signum)


def main() -> None:
    """`python -m loaderd.lifeline PARENT_PID PROGRAM ARGUMENT…`: becomes that program, tied to its parent."""
    die_with_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
