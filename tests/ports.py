"""Ports for servers that tests start."""

from __future__ import annotations

import contextlib
import random
import socket

_given: set[int] = set()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has, below those that the kernel gives to outgoing connections: none of these
    takes it before it is used, or between two starts of a server."""
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port
