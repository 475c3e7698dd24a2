"""What is written is with the peer at once, whole and in order, also when the peer is slow or gone."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from loaderd.writing import Writer

SECONDS = 20.0
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Endpoint(asyncio.Protocol):
    def __init__(self) -> None:
        self.lost = asyncio.get_running_loop().create_future()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set_result(error)


Scene = Callable[[asyncio.Transport, Endpoint, socket.socket], Coroutine[Any, Any, None]]


@pytest.fixture(params=LOOPS)
def played(request: pytest.FixtureRequest) -> Callable[[Scene], None]:
    """Runs a scene between a transport and the other end of its socket."""

    async def play(scene: Scene) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        transport, endpoint = await asyncio.get_running_loop().create_unix_connection(Endpoint, sock=ours)
        with theirs:
            await scene(transport, endpoint, theirs)
            transport.abort()
            await asyncio.wait_for(asyncio.shield(endpoint.lost), SECONDS)

    def run(scene: Scene) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(play(scene))

    return run


def test_the_peer_has_it_before_the_event_loop_goes_on(played: Callable[[Scene], None]) -> None:
    async def scene(transport: asyncio.Transport, endpoint: Endpoint, theirs: socket.socket) -> None:
        del endpoint
        theirs.setblocking(False)
        Writer(transport).write(b"at once")
        assert theirs.recv(100) == b"at once"

    played(scene)


def test_what_the_kernel_does_not_take_follows_in_order(played: Callable[[Scene], None]) -> None:
    parts = [bytes([number]) * size for number, size in enumerate([10, 3_000_000, 7, 1, 2_000_000, 5])]

    async def scene(transport: asyncio.Transport, endpoint: Endpoint, theirs: socket.socket) -> None:
        del endpoint
        writer, digest, wanted = Writer(transport), hashlib.sha256(), hashlib.sha256(b"".join(parts))
        for part in parts:
            writer.write(part)
        assert transport.get_write_buffer_size() > 0, "the peer does not read yet"

        def read() -> None:
            left = sum(map(len, parts))
            while left:
                piece = theirs.recv(1 << 16)
                digest.update(piece)
                left -= len(piece)

        await asyncio.wait_for(asyncio.to_thread(read), SECONDS)
        assert digest.digest() == wanted.digest()

    played(scene)


def test_a_peer_that_is_gone_is_told_by_the_transport(played: Callable[[Scene], None]) -> None:
    async def scene(transport: asyncio.Transport, endpoint: Endpoint, theirs: socket.socket) -> None:
        theirs.close()
        writer = Writer(transport)
        for _ in range(3):
            writer.write(b"to nobody")
        await asyncio.wait_for(asyncio.shield(endpoint.lost), SECONDS)

    played(scene)


def test_a_transport_that_is_no_socket_is_written_to() -> None:
    class Kept(asyncio.Transport):
        written = b""

        def write(self, data: bytes | bytearray | memoryview) -> None:
            self.written += data

    transport = Kept()
    Writer(transport).write(b"as ever")
    assert transport.written == b"as ever"
