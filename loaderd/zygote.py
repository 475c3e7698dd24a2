"""A process that has imported one framework and nothing else, from which model processes are forked in milliseconds.

It is single-threaded and never runs an operation of the framework: a child forked after one hangs
(docs/architecture.md). It refuses to fork when it has more than one thread; the supervisor then spawns cold.

Supervisor -> zygote, one SOCK_SEQPACKET packet each: {"id", "data_socket"} with two descriptors, the new
process' channel and its log. Zygote -> supervisor: {"event": "ready", "import_seconds"}, then per request
{"id", "pid"} or {"id", "refused"}. The spec itself waits in the channel for the new process to read.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import socket
import sys
import time
from typing import Any, NoReturn

from loaderd import catalogue
from loaderd.frameworks.base import Framework
from loaderd.lifeline import die_with_parent
from loaderd.process import become_model

MAX_PACKET_BYTES = 64 * 1024
ADOPTION_SECONDS = 5.0


def thread_count() -> int:
    return len(os.listdir("/proc/self/task"))


def serve(link: socket.socket, framework: Framework, supervisor_pid: int) -> None:
    """Imports the framework, then forks a model process per request until the supervisor closes the link."""
    started = time.monotonic()
    framework.ensure_imported()
    import loaderd.worker.main  # noqa: F401 - imported here so that no child pays for it

    gc.collect()
    gc.freeze()  # a child's first full collection would otherwise copy every page that holds an object
    _answer(link, event="ready", import_seconds=time.monotonic() - started, threads=thread_count())
    while True:
        packet, descriptors, _flags, _address = socket.recv_fds(link, MAX_PACKET_BYTES, 2)
        if not packet:
            return
        request = json.loads(packet)
        try:
            if (threads := thread_count()) != 1:
                _answer(link, id=request["id"], refused=f"the {framework.name} zygote has {threads} threads")
                continue
            pid = _fork(link, descriptors, request["data_socket"], framework, supervisor_pid)
            _answer(link, id=request["id"], pid=pid)
        except OSError as error:
            _answer(link, id=request["id"], refused=f"fork failed: {error}")
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


def _answer(link: socket.socket, **message: Any) -> None:
    link.send(json.dumps(message).encode())


def _fork(
    link: socket.socket, descriptors: list[int], data_socket_path: str, framework: Framework, supervisor_pid: int
) -> int:
    """Forks twice, so that the supervisor (a subreaper) adopts the model process and gets its true exit code.

    Returns the model process' pid once its middle parent is gone.
    """
    reader, writer = os.pipe()
    try:
        middle = os.fork()
    except OSError:
        os.close(reader)
        os.close(writer)
        raise
    if middle == 0:
        try:
            model = os.fork()
            if model == 0:
                os.close(reader)
                os.close(writer)
                _begin_model(link, descriptors, data_socket_path, framework, supervisor_pid)
            os.write(writer, str(model).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(middle, 0)
    if not text:
        raise OSError("the second fork failed; the machine may be out of memory or processes")
    return int(text)


def _begin_model(
    link: socket.socket, descriptors: list[int], data_socket_path: str, framework: Framework, supervisor_pid: int
) -> NoReturn:
    status = 70
    try:
        link.close()
        os.setsid()
        channel_descriptor, log_descriptor = descriptors
        os.dup2(log_descriptor, 1)
        os.dup2(log_descriptor, 2)
        os.close(log_descriptor)
        # PR_SET_PDEATHSIG watches the parent of this moment: wait until the subreaper is it.
        deadline = time.monotonic() + ADOPTION_SECONDS
        while os.getppid() != supervisor_pid and time.monotonic() < deadline:
            os.sched_yield()
        become_model(socket.socket(fileno=channel_descriptor), data_socket_path, framework, supervisor_pid)
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def main() -> None:
    parser = argparse.ArgumentParser(prog="loaderd.zygote")
    parser.add_argument("--framework", required=True)
    parser.add_argument("--link-fd", type=int, required=True)
    parser.add_argument("--supervisor-pid", type=int, required=True)
    arguments = parser.parse_args()
    die_with_parent(arguments.supervisor_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(socket.socket(fileno=arguments.link_fd), catalogue.framework(arguments.framework), arguments.supervisor_pid)


if __name__ == "__main__":
    main()
