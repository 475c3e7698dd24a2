"""One listening socket, its connections, and who answers their requests."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from loaderd.errors import LoaderdError
from loaderd.gateway.http.connection import HttpConnection
from loaderd.gateway.http.exchange import Exchange

GRACE_SECONDS = 5.0
KEEP_ALIVE_SECONDS = 75.0  # between two requests; also what a client may take for a head, or to read on
LOOK_SECONDS = 5.0
BACKLOG = 2048


class PortInUse(LoaderdError):
    code = "port_in_use"
    http_status = 500


def tcp_listener(host: str, port: int, *, is_shared: bool = False, joins: bool = False) -> socket.socket:
    """A bound socket; raises PortInUse when it cannot be had.

    is_shared: other processes of this user may listen there as well. joins: one does already; else the port must be
    free, of processes that would share it too.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        if is_shared and not joins and port:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                probe.listen()
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
    except OSError as error:
        raise PortInUse(
            f"The inference door cannot listen on {host}:{port} ({error.strerror}); "
            "stop what uses it or set INFERENCE_HOST and INFERENCE_PORT.",
            host=host,
            port=port,
        ) from None
    return listener


class Listener:
    """begin: called with each exchange when its head has come; it or what it starts answers the exchange."""

    def __init__(self, begin: Callable[[Exchange], None], sock: socket.socket) -> None:
        self.begin = begin
        self.is_stopping = False
        self._sock = sock
        self._connections: set[HttpConnection] = set()
        self._none_left = asyncio.Event()
        self._server: asyncio.Server | None = None  # held: uvloop does not
        self._looking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        make = lambda: HttpConnection(self)  # noqa: E731
        if self._sock.family == socket.AF_UNIX:
            self._server = await loop.create_unix_server(make, sock=self._sock, backlog=BACKLOG)
        else:
            self._server = await loop.create_server(make, sock=self._sock, backlog=BACKLOG)
        self._looking = loop.create_task(self._look())

    async def stop(self) -> None:
        """Takes no new connections, answers what is in flight (within a bound), closes."""
        self.is_stopping = True
        if self._looking is not None:
            self._looking.cancel()
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            if connection.is_idle:
                connection.close()
        self._none_left.clear()
        if self._connections:
            try:
                async with asyncio.timeout(GRACE_SECONDS):
                    await self._none_left.wait()
            except TimeoutError:
                for connection in list(self._connections):
                    connection.abort()

    def opened(self, connection: HttpConnection) -> None:
        self._connections.add(connection)

    def closed(self, connection: HttpConnection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._none_left.set()

    async def _look(self) -> None:
        """Closes connections that nothing is heard of: one look at all of them costs less than a timer for each
        request."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = loop.time()
            for connection in list(self._connections):
                connection.look(now, KEEP_ALIVE_SECONDS)
