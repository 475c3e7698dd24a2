"""Ports for servers that tests start."""

from __future__ import annotations

import contextlib
import os
import random
import socket

_given: set[int] = set()
# Tests that run at the same time choose among other ports: between choice and use nobody sees that one is taken.
_MOST_WORKERS = 16
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _MOST_WORKERS


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has, below those that the kernel gives to outgoing connections: none of these
    takes it before it is used, or between two starts of a server."""
    while True:
        port = random.SystemRandom().randrange(15_008 + _WORKER, 32_000, _MOST_WORKERS)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port
