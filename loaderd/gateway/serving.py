"""uvicorn behind both listeners, without its own signal handling and ticking: the channel says when to stop."""

from __future__ import annotations

import socket
from typing import Any

import uvicorn

from loaderd.errors import LoaderdError

_GRACE_SECONDS = 5
_KEEP_ALIVE_SECONDS = 75
_BACKLOG = 2048


class PortInUse(LoaderdError):
    code = "port_in_use"
    http_status = 500


def tcp_listener(host: str, port: int) -> socket.socket:
    """A bound socket; raises PortInUse when it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
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
    """One listening socket with its application."""

    def __init__(self, app: Any, sock: socket.socket) -> None:
        self._sock = sock
        config = uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            interface="asgi3",
            access_log=False,
            log_config=None,
            log_level="warning",
            server_header=False,
            date_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        config.load()
        self._server = uvicorn.Server(config)
        self._server.lifespan = config.lifespan_class(config)

    async def start(self) -> None:
        await self._server.startup(sockets=[self._sock])

    async def stop(self) -> None:
        """Takes no new connections, answers what is in flight, closes."""
        await self._server.shutdown(sockets=[self._sock])
