"""The first steps of a model process, between its birth (fork or spawn) and `loaderd.worker.main.run`.

Run as a module it is the cold spawn: the same process without a zygote, slower by the framework's import.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path
from typing import NoReturn

from loaderd import catalogue, heap, protocol
from loaderd.frameworks.base import Framework
from loaderd.lifeline import die_with_parent, forbid_new_privileges
from loaderd.protocol import ModelSpec

OOM_SCORE_ADJ = 500
"""Under memory pressure the kernel ends a model before the daemon, the database or the web server."""


def become_model(channel: socket.socket, data_socket_path: str, framework: Framework, supervisor_pid: int) -> NoReturn:
    """Ties this process to the supervisor, drops what it does not need, and serves the model."""
    die_with_parent(supervisor_pid)
    forbid_new_privileges()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the supervisor decides: it drains, then kills
    os.umask(0o077)
    _offer_to_oom_killer()
    heap.prepare_for_load()
    message = protocol.receive(channel)
    if message is None:
        os._exit(0)
    from loaderd.worker import main

    main.run(channel, ModelSpec.from_message(message), data_socket_path, framework)


def _offer_to_oom_killer() -> None:
    with contextlib.suppress(OSError):  # some containers forbid it, and start with a score of their own
        score = Path("/proc/self/oom_score_adj")
        score.write_text(str(max(OOM_SCORE_ADJ, int(score.read_text()))))


def main() -> NoReturn:
    parser = argparse.ArgumentParser(prog="loaderd.process")
    parser.add_argument("--framework", required=True)
    parser.add_argument("--channel-fd", type=int, required=True)
    parser.add_argument("--data-socket", required=True)
    parser.add_argument("--supervisor-pid", type=int, required=True)
    arguments = parser.parse_args()
    become_model(
        socket.socket(fileno=arguments.channel_fd),
        arguments.data_socket,
        catalogue.framework(arguments.framework),
        arguments.supervisor_pid,
    )


if __name__ == "__main__":
    sys.exit(main())
