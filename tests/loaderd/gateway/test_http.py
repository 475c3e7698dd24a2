"""HTTP/1.1 at the door: what clients may send, in what pieces, and what they get."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from loaderd.errors import InvalidInput
from loaderd.gateway.http import listener as listening
from loaderd.gateway.http.connection import MAX_AT_ONCE, MAX_HEAD_BYTES, MAX_PIPELINED
from loaderd.gateway.http.exchange import HIGH_WATER_BYTES, Disconnected, Exchange
from loaderd.gateway.http.listener import Listener

SECONDS = 20.0
LARGE_BYTES = 1_000_000
POST = b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b"


class House:
    """Answers /echo with the body, /wait when `go` is set, /early before the body has come, /large with LARGE_BYTES,
    /stream in parts, and keeps how each exchange ended, and what headers each had."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.ended: list[int] = []
        self.left = 0
        self.begun: list[str] = []
        self.headers: list[dict[bytes, bytes]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, exchange: Exchange) -> None:
        self.begun.append(exchange.url.decode())
        self.headers.append(exchange.headers)
        exchange.on_over = self.ended.append
        task = asyncio.get_running_loop().create_task(self._answer(exchange))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, exchange: Exchange) -> None:
        try:
            if exchange.url == b"/early":
                exchange.respond(b"early", 401)
                return
            if exchange.url == b"/large":
                exchange.respond(bytes(LARGE_BYTES))
                return
            if exchange.url == b"/stream":
                await exchange.stream(self._parts(), [(b"content-type", b"text/plain")])
                return
            body = b""
            while (piece := await exchange.piece()) is not None:
                body += piece
            if exchange.url == b"/wait":
                task = asyncio.current_task()
                assert task is not None
                exchange.on_gone = task.cancel
                await self.go.wait()
            exchange.respond(body or exchange.method.encode(), 200)
        except InvalidInput as error:
            exchange.respond(error.message.encode(), error.http_status)
        except Disconnected:
            self.left += 1
            exchange.abandon()
        except asyncio.CancelledError:
            self.left += 1

    async def _parts(self) -> AsyncIterator[bytes]:
        yield b"one"
        await self.go.wait()
        yield b"two"


Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Test = Callable[[House, Listener, Callable[[], Awaitable[Client]]], Coroutine[Any, Any, None]]


def at_the_door(test: Test) -> None:
    """Runs a test against a listening door."""

    async def run() -> None:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        house, port = House(), sock.getsockname()[1]
        door = Listener(house.begin, sock)
        await door.start()
        writers: list[asyncio.StreamWriter] = []

        async def connect() -> Client:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writers.append(writer)
            return reader, writer

        try:
            async with asyncio.timeout(SECONDS):
                await test(house, door, connect)
        finally:
            for writer in writers:
                writer.close()
            await door.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[bytes, bytes], bytes]:
    """The next answer on a connection: status, headers, body."""
    head = await reader.readuntil(b"\r\n\r\n")
    status, *lines = head[:-4].split(b"\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in lines)
    return int(status.split()[1]), headers, await reader.readexactly(int(headers.get(b"content-length", b"0")))


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("size", [0, 1, 7, 1000])
def test_a_request_in_pieces_of_any_size_is_one_request(size: int) -> None:
    async def test(house: House, door: Listener, connect: Any) -> None:
        reader, writer = await connect()
        sent = POST % (11, b"hello world")
        for at in range(0, len(sent), size or len(sent)):
            writer.write(sent[at : at + (size or len(sent))])
            await writer.drain()
            await asyncio.sleep(0)
        assert (await answer(reader))[::2] == (200, b"hello world")
        assert house.begun == ["/echo"]

    at_the_door(test)


def test_requests_behind_each_other_are_answered_in_their_order() -> None:
    async def test(house: House, door: Listener, connect: Any) -> None:
        reader, writer = await connect()
        number = 3 * MAX_PIPELINED
        writer.write(b"POST /wait HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nfirst")
        writer.write(b"".join(POST % (3, b"%03d" % each) for each in range(number)))
        await until(lambda: house.begun)
        assert house.begun == ["/wait"], "one at a time"
        house.go.set()
        assert (await answer(reader))[2] == b"first"
        assert [(await answer(reader))[2] for _ in range(number)] == [b"%03d" % each for each in range(number)]
        await until(lambda: len(house.ended) == number + 1)

    at_the_door(test)


def test_a_chunked_body_is_put_together() -> None:
    async def test(house: House, door: Listener, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(
            b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        )
        assert (await answer(reader))[2] == b"abcde"

    at_the_door(test)


def test_who_expects_to_be_told_is_told_to_go_on_when_the_body_is_wanted() -> None:
    async def test(house: House, door: Listener, connect: Any) -> None:
        head = b"POST %b HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n"
        reader, writer = await connect()
        writer.write(head % b"/echo")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"body")
        assert (await answer(reader))[2] == b"body"
        reader, writer = await connect()
        writer.write(head % b"/early")
        assert (await answer(reader))[0] == 401, "nobody wanted its body"

    at_the_door(test)


def test_an_answer_before_the_end_of_the_body_leaves_the_connection_usable() -> None:
    async def test(house: House, door: Listener, connect: Any) -> None:
        reader, writer = await connect()
        size = 4 * HIGH_WATER_BYTES
        writer.write(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size)
        assert (await answer(reader))[0] == 401
        writer.write(bytes(size))
        writer.write(POST % (2, b"on"))
        assert (await answer(reader))[2] == b"on"

    at_the_door(test)


def test_a_body_that_nobody_reads_yet_is_not_taken_in_without_end() -> None:
    async def test(house: House, door: Listener, connect: Any) -> None:
        reader, writer = await connect()
        size = 64 * HIGH_WATER_BYTES
        writer.write(b"POST /wait HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nfirst")
        writer.write(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size)
        writer.write(b"x" * size)
        await until(lambda: house.begun)
        held = [connection._queue for connection in door._connections]
        await until(lambda: held[0] and held[0][0].unread_bytes > HIGH_WATER_BYTES)
        await asyncio.sleep(0.1)
        assert held[0][0].unread_bytes < size / 2
        house.go.set()
        assert (await answer(reader))[2] == b"first"
        assert len((await answer(reader))[2]) == size

    at_the_door(test)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * (2 * MAX_HEAD_BYTES) + b"\r\n\r\n", 431),
        (b"GET /" + b"y" * (2 * MAX_HEAD_BYTES) + b" HTTP/1.1\r\n\r\n", 431),
    ],
    ids=["no request", "bad header", "two lengths", "length and chunks", "long header", "long path"],
)
def test_what_is_no_request_is_refused_and_the_connection_closed(sent: bytes, status: int) -> None:
    async def test(house: House, door: Listener, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(sent)
        told, headers, body = await answer(reader)
        assert (told, headers[b"connection"]) == (status, b"close")
        assert b'"error"' in body
        assert await reader.read() == b""
        assert house.begun == []

    at_the_door(test)


@pytest.mark.parametrize(
    "head", [b"GET /echo HTTP/1.0\r\n\r\n", b"GET /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"]
)
def test_who_wants_no_second_answer_gets_the_end_of_the_connection(head: bytes) -> None:
    async def test(house: House, door: Listener, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(head)
        status, headers, body = await answer(reader)
        assert (status, headers[b"connection"], body) == (200, b"close", b"GET")
        assert await reader.read() == b""

    at_the_door(test)


def test_an_offer_of_another_protocol_is_answered_in_this_one() -> None:
    async def test(house: House, door: Listener, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(b"GET /echo HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: h2c\r\n\r\n")
        assert (await answer(reader))[::2] == (200, b"GET")

    at_the_door(test)


def test_head_is_answered_without_the_body() -> None:
    async def test(house: House, door: Listener, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(b"HEAD /echo HTTP/1.1\r\nhost: x\r\n\r\n" + POST % (2, b"on"))
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"content-length: 4" in head
        assert (await answer(reader))[2] == b"on"

    at_the_door(test)


@pytest.mark.parametrize("sent", [POST % (5, b"hel"), b"POST /wait HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nab"])
def test_who_leaves_without_an_answer_is_noticed(sent: bytes) -> None:
    async def test(house: House, door: Listener, connect: Any) -> None:
        _, writer = await connect()
        writer.write(sent)
        await until(lambda: house.begun)
        writer.close()
        await until(lambda: house.left)
        assert house.ended == [0]

    at_the_door(test)


def test_parts_are_sent_as_they_come() -> None:
    async def test(house: House, door: Listener, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"transfer-encoding: chunked" in head
        assert await reader.readuntil(b"one\r\n") == b"3\r\none\r\n"
        house.go.set()
        assert await reader.readuntil(b"0\r\n\r\n") == b"3\r\ntwo\r\n0\r\n\r\n"
        writer.write(POST % (2, b"on"))
        assert (await answer(reader))[2] == b"on"

    at_the_door(test)


def test_a_stop_answers_what_is_in_work_and_closes_the_rest() -> None:
    async def test(house: House, door: Listener, connect: Any) -> None:
        idle, _ = await connect()
        reader, writer = await connect()
        writer.write(b"POST /wait HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nab")
        await until(lambda: house.begun)
        stopping = asyncio.create_task(door.stop())
        assert await idle.read() == b""
        house.go.set()
        assert (await answer(reader))[2] == b"ab"
        assert await reader.read() == b""
        await stopping
        with pytest.raises(ConnectionRefusedError):
            await connect()

    at_the_door(test)


@pytest.mark.parametrize("sent", [b"", b"POST /echo HTT", POST % (2, b"on")])
def test_who_is_silent_for_long_is_shown_out(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(listening, "KEEP_ALIVE_SECONDS", 0.1)

    async def test(house: House, door: Listener, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(sent)
        assert (b"200 OK" in await reader.read()) is sent.endswith(b"on")

    at_the_door(test)


def test_who_does_not_take_a_large_answer_is_shown_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(listening, "KEEP_ALIVE_SECONDS", 0.3)

    async def test(house: House, door: Listener, connect: Any) -> None:
        reader, writer = await connect()
        reader._transport.pause_reading()
        body = bytes(30_000_000)
        writer.write(POST % (len(body), body))
        await until(lambda: house.ended)
        assert house.ended == [200]
        await until(lambda: not door._connections)
        reader._transport.resume_reading()
        with contextlib.suppress(ConnectionResetError):
            assert len(await reader.read()) < len(body)

    at_the_door(test)


WAIT = b"POST /wait HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nab"


@pytest.mark.parametrize("behind", [b"\x00nonsense\r\n\r\n", b"}\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n"])
def test_what_is_no_request_behind_one_in_work_ends_the_connection_after_its_answer(behind: bytes) -> None:
    async def test(house: House, door: Listener, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(WAIT)
        await until(lambda: house.begun)
        writer.write(POST % (2, b"on") + behind)
        (connection,) = door._connections
        await until(lambda: connection._is_leaving)
        house.go.set()
        assert (await answer(reader))[::2] == (200, b"ab")
        status, headers, body = await answer(reader)
        assert (status, headers[b"connection"], body) == (200, b"close", b"on")
        assert await reader.read() == b""
        assert house.ended == [200, 200]

    at_the_door(test)


def test_an_answer_behind_the_end_of_the_connection_goes_nowhere() -> None:
    async def test(house: House, door: Listener, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(WAIT)
        await until(lambda: house.begun)
        (connection,) = door._connections
        connection._linger()
        assert await reader.read() == b""
        house.go.set()
        await until(lambda: house.ended)
        assert house.ended == [200]

    at_the_door(test)


def test_a_body_that_cannot_be_read_to_its_end_is_refused() -> None:
    async def test(house: House, door: Listener, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await until(lambda: house.begun)
        writer.write(b"no length\r\n")
        status, headers, body = await answer(reader)
        assert (status, headers[b"connection"]) == (400, b"close")
        assert body.startswith(b"This is no HTTP request")
        assert await reader.read() == b""

    at_the_door(test)


@pytest.mark.parametrize(
    "beginning",
    [
        b"GET / HTTP/1.1\r\nx: ",
        b"POST /echo HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: ",
    ],
    ids=["header", "trailer"],
)
def test_a_header_line_that_never_ends_is_refused_before_it_is_large(beginning: bytes) -> None:
    async def test(house: House, door: Listener, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(beginning)
        (connection,) = door._connections
        refused = asyncio.create_task(answer(reader))
        sent = 0
        while not refused.done():
            writer.write(b"y" * MAX_HEAD_BYTES)
            await writer.drain()
            sent += MAX_HEAD_BYTES
            await asyncio.sleep(0)
            assert connection._is_leaving or sent < 64 * MAX_HEAD_BYTES
        assert refused.result()[0] in (400, 431)
        assert b"The request's head passes" in refused.result()[2]

    at_the_door(test)


def test_a_large_body_behind_a_head_in_two_pieces_is_no_large_head() -> None:
    async def test(house: House, door: Listener, connect: Any) -> None:
        reader, writer = await connect()
        body = bytes(8 * MAX_HEAD_BYTES)
        sent = POST % (len(body), body)
        writer.write(sent[:20])
        await writer.drain()
        await until(lambda: [each for each in door._connections if each._newest is not None])
        writer.write(sent[20:])
        assert (await answer(reader))[2] == body

    at_the_door(test)


def test_answers_do_not_pile_up_for_a_client_that_takes_none() -> None:
    async def test(house: House, door: Listener, connect: Any) -> None:
        reader, writer = await connect()
        reader._transport.pause_reading()
        number = 100
        writer.write(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n" * number)
        await until(lambda: [each for each in door._connections if each._is_stuck])
        (connection,) = door._connections
        await asyncio.sleep(0.1)
        assert connection._transport.get_write_buffer_size() <= 2 * LARGE_BYTES
        assert len(house.begun) < number / 2
        reader._transport.resume_reading()
        for _ in range(number):
            assert len((await answer(reader))[2]) == LARGE_BYTES

    at_the_door(test)


def test_requests_without_end_in_one_piece_are_answered_up_to_a_bound() -> None:
    async def test(house: House, door: Listener, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(WAIT)
        await until(lambda: house.begun)
        (connection,) = door._connections
        connection.data_received(b"GET /echo HTTP/1.1\r\n\r\n" * (2 * MAX_AT_ONCE))  # as one read brings it
        assert len(connection._queue) == MAX_AT_ONCE
        house.go.set()
        for _ in range(MAX_AT_ONCE + 1):
            status, headers, _ = await answer(reader)
            assert status == 200
        assert headers[b"connection"] == b"close"
        assert await reader.read() == b""

    at_the_door(test)


def test_who_takes_a_large_answer_slowly_but_steadily_gets_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(listening, "KEEP_ALIVE_SECONDS", 0.5)

    async def test(house: House, door: Listener, connect: Any) -> None:
        reader, writer = await connect()
        body = bytes(30_000_000)
        writer.write(POST % (len(body), body))
        got, began = 0, asyncio.get_running_loop().time()
        while got < len(body):
            piece = await reader.read(300_000)
            assert piece, "cut off"
            got += len(piece)
            await asyncio.sleep(0.012)
        assert asyncio.get_running_loop().time() - began > 2 * listening.KEEP_ALIVE_SECONDS

    at_the_door(test)


def test_who_does_not_take_the_little_rest_of_an_answer_is_shown_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "LOOK_SECONDS", 0.02)

    async def test(house: House, door: Listener, connect: Any) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            await loop.sock_connect(client, door._sock.getsockname())
            await until(lambda: door._connections)
            (connection,) = door._connections
            body, sent = b"x" * 10_000, 0
            while connection._transport.get_write_buffer_size() < 2 * len(body):
                await loop.sock_sendall(client, POST % (len(body), body))
                sent += 1
                await until(lambda number=sent: len(house.ended) == number)
            assert not connection._is_stuck
            monkeypatch.setattr(listening, "KEEP_ALIVE_SECONDS", 0.1)
            await until(lambda: not door._connections)

    at_the_door(test)


def test_a_body_that_was_not_asked_for_does_not_swallow_the_next_request() -> None:
    async def test(house: House, door: Listener, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(b"POST /early HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 400\r\n\r\n")
        status, headers, _ = await answer(reader)
        assert (status, headers[b"connection"]) == (401, b"close")
        assert await reader.read() == b""

    at_the_door(test)


def test_what_stands_behind_a_chunked_body_is_no_header() -> None:
    async def test(house: House, door: Listener, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(
            b"POST /echo HTTP/1.1\r\nauthorization: a\r\ntransfer-encoding: chunked\r\n\r\n"
            b"1\r\na\r\n0\r\nauthorization: b\r\ncontent-encoding: gzip\r\n\r\n"
        )
        assert (await answer(reader))[2] == b"a"
        assert house.headers == [{b"authorization": b"a", b"transfer-encoding": b"chunked"}]

    at_the_door(test)


def test_a_header_in_several_lines_is_one_list_in_their_order() -> None:
    async def test(house: House, door: Listener, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(
            b"GET /a HTTP/1.1\r\nhost: x\r\nTraceState: a=1\r\naccept-encoding: gzip\r\ntracestate: b=2,c=3\r\n"
            b"cookie: k=1\r\ntracestate: d=4\r\naccept-encoding: zstd\r\ncookie: l=2\r\n\r\n"
        )
        assert (await answer(reader))[0] == 200
        assert house.headers == [
            {
                b"host": b"x",
                b"tracestate": b"a=1, b=2,c=3, d=4",
                b"accept-encoding": b"gzip, zstd",
                b"cookie": b"k=1; l=2",
            }
        ]

    at_the_door(test)


@pytest.mark.parametrize(
    ("lines", "status", "said"),
    [
        (b"host: x\r\nhost: y\r\n", 400, "The header host may come once only."),
        (b"authorization: Bearer a\r\nAuthorization: Bearer b\r\n", 400, "authorization may come once"),
        (b"content-type: a/b\r\ncontent-type: c/d\r\n", 400, "content-type may come once"),
        (b"x-modelhub-user: a\r\nx-modelhub-user: b\r\n", 400, "x-modelhub-user may come once"),
        (b"content-length: 0\r\ncontent-length: 0\r\n", 400, "This is no HTTP request"),
        (b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", 400, "This is no HTTP request"),
        (b"a:\r\n" * 5000, 431, "lines of one header pass"),
    ],
    ids=["host", "authorization", "content type", "user", "length", "chunks", "very many lines"],
)
def test_what_may_come_once_is_refused_twice(lines: bytes, status: int, said: str) -> None:
    async def test(house: House, door: Listener, connect: Any) -> None:
        reader, writer = await connect()
        writer.write(b"GET /a HTTP/1.1\r\n" + lines + b"\r\n")
        found, headers, body = await answer(reader)
        assert (found, headers[b"connection"]) == (status, b"close")
        assert said in body.decode()
        assert await reader.read() == b""
        assert house.begun == []

    at_the_door(test)


def test_parts_for_a_client_that_knows_no_chunks_end_with_the_connection() -> None:
    async def test(house: House, door: Listener, connect: Any) -> None:
        reader, writer = await connect()
        house.go.set()
        writer.write(b"GET /stream HTTP/1.0\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"transfer-encoding" not in head
        assert b"connection: close" in head
        assert await reader.read() == b"onetwo"

    at_the_door(test)
