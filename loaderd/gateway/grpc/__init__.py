"""The inference door in gRPC: `inference.GRPCInferenceService` on a port of its own, in the gateway's event loop."""

from __future__ import annotations

import asyncio
import importlib
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from loaderd.errors import LoaderdError
from loaderd.gateway.body import Budget
from loaderd.gateway.metrics import DoorCounts

if TYPE_CHECKING:
    from grpc import aio

    from loaderd.gateway.access import Access
    from loaderd.gateway.grpc.service import Service
    from loaderd.gateway.predicting import Predictor

log = logging.getLogger(__name__)

GRACE_SECONDS = 2.0  # less than the supervisor's
RETRY_SECONDS = 5.0  # while the port is in use
MAX_CALLS = 2048  # at once; past it a call is answered RESOURCE_EXHAUSTED. Small messages are not counted otherwise.


class GrpcPortInUse(LoaderdError):
    code = "grpc_port_in_use"
    http_status = 500


class Door:
    """A listening gRPC server. counts: its requests, for the metrics."""

    def __init__(self, server: aio.Server, service: Service, port: int, counts: DoorCounts) -> None:
        self.port = port
        self.counts = counts
        self._server = server
        self._service = service

    async def stop(self) -> None:
        """Takes no new calls, answers what is in flight, closes."""
        self._service.streams.stop()
        await self._server.stop(GRACE_SECONDS)


async def start(
    host: str,
    port: int,
    predictor: Predictor,
    access: Access,
    *,
    budget: Budget | None = None,
    is_shared: bool = False,
    joins: bool = False,
) -> Door:
    """A door that listens; port 0: any free one. budget: what all doors' bodies share. is_shared: other processes of
    this user may listen there as well. joins: one may do so already; else the port must be free.

    Raises GrpcPortInUse. Nothing of gRPC is imported, and no thread of it runs, until this is called.
    """
    _require_port(host, port, may_be_shared=is_shared and joins)
    await asyncio.to_thread(importlib.import_module, "loaderd.gateway.grpc.service")  # while HTTP is answered
    from grpc import Compression, aio

    from loaderd.gateway.grpc.service import Service
    from loaderd.gateway.grpc.transcoding import MAX_MESSAGE_BYTES

    counts = DoorCounts()
    service = Service(predictor, access, budget or Budget(), counts)
    server = aio.server(
        handlers=service.handlers(),
        maximum_concurrent_rpcs=MAX_CALLS,
        compression=Compression.NoCompression,  # of answers; requests may come compressed
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", -1),  # `transcoding` bounds it, and says so
            ("grpc.max_metadata_size", 64 * 1024),
            ("grpc.so_reuseport", int(is_shared)),  # else another program would take half of the calls unnoticed
            ("grpc.keepalive_time_ms", 60_000),  # a client that is gone without a word is noticed
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),  # oftener counts as an attack
            ("grpc.http2.max_pings_without_data", 0),
        ],
    )
    try:
        bound = server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except RuntimeError as error:
        raise _in_use(host, port, str(error)) from None
    await server.start()
    return Door(server, service, bound, counts)


async def start_when_free(begin: Callable[[bool], Awaitable[Door]], tell: Callable[[dict[str, Any]], None]) -> Door:
    """The door that `begin` starts, tried again while its port is in use.

    begin(is_again): whether it was tried before; then it may be a gateway beside this one that has the port by now.
    tell: called with an event, "grpc", when it listens ("port") and when it cannot yet ("error").
    """
    was_told = False
    while True:
        try:
            door = await begin(was_told)
        except GrpcPortInUse as error:
            if not was_told:
                log.error("%s", error)
                tell({"event": "grpc", "port": None, "error": error.to_message()})
            was_told = True
            await asyncio.sleep(RETRY_SECONDS)
        else:
            tell({"event": "grpc", "port": door.port, "error": None})
            return door


def _require_port(host: str, port: int, *, may_be_shared: bool) -> None:
    """Raises GrpcPortInUse with the system's reason, which gRPC would only write into the log."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(may_be_shared))
            probe.bind(address)
            probe.listen()
    except OSError as error:
        raise _in_use(host, port, str(error.strerror)) from None


def _in_use(host: str, port: int, reason: str) -> GrpcPortInUse:
    return GrpcPortInUse(
        f"The gRPC door cannot listen on {host}:{port} ({reason}); stop what uses it or set GRPC_HOST and GRPC_PORT "
        "(0: no gRPC). HTTP goes on without it meanwhile.",
        host=host,
        port=port,
    )
