"""One HTTP request and the answer to it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

from loaderd.errors import InvalidInput

if TYPE_CHECKING:
    from loaderd.gateway.http.connection import HttpConnection

Headers = Sequence[tuple[bytes, bytes]]

JSON: Headers = ((b"content-type", b"application/json"),)
HIGH_WATER_BYTES = 64 * 1024  # of a body that nobody has read yet; past it the client is not read any further
_JOIN_BYTES = 64 * 1024  # answers up to here are written in one piece

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_OK_JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Disconnected(Exception):
    """The client went away; nobody is left to answer."""


class Exchange:
    """method, url: as the client wrote them. headers: by lower-case name; of several with one name the last.

    takes_chunks: not true of HTTP/1.0. on_gone: called once when the client leaves before it has its answer.
    on_over: called once at the end, with the status of the answer, or 0 when there was nobody to answer. is_whole: all
    of the body has come. is_begun: part of the answer is written. is_traced: whether it was picked to be traced, None
    while nobody has drawn. began: by time.perf_counter, when the first byte had come. received_bytes, sent_bytes: of
    its body and of the answer's, so far.
    """

    __slots__ = (
        "_arrival",
        "_connection",
        "_pieces",
        "_spoilt",
        "_unread_bytes",
        "_wants_continue",
        "began",
        "headers",
        "is_answered",
        "is_begun",
        "is_gone",
        "is_traced",
        "is_whole",
        "keep_alive",
        "method",
        "on_gone",
        "on_over",
        "received_bytes",
        "sent_bytes",
        "takes_chunks",
        "url",
    )

    def __init__(self, connection: HttpConnection) -> None:
        self._connection = connection
        self._pieces: deque[bytes] = deque()
        self._unread_bytes = 0
        self._arrival: asyncio.Future[None] | None = None
        self._wants_continue = False
        self._spoilt = ""
        self.began = time.perf_counter()
        self.method = ""
        self.url = b""
        self.headers: dict[bytes, bytes] = {}
        self.keep_alive = True
        self.takes_chunks = True
        self.is_whole = False
        self.is_answered = False
        self.is_begun = False
        self.is_gone = False
        self.is_traced: bool | None = None
        self.received_bytes = 0
        self.sent_bytes = 0
        self.on_gone: Callable[[], object] | None = None
        self.on_over: Callable[[int], object] | None = None

    # The body

    @property
    def unread_bytes(self) -> int:
        return self._unread_bytes

    def peek_whole(self) -> list[bytes]:
        """All pieces of a body that has come whole and that nobody has read; it may still be read."""
        return list(self._pieces)

    async def piece(self) -> bytes | None:
        """The next piece of the body, None at its end. Raises Disconnected, and InvalidInput when the rest of it cannot
        be read."""
        while not self._pieces:
            if self.is_whole:
                return None
            if self.is_gone:
                raise Disconnected
            if self._spoilt:
                raise InvalidInput(self._spoilt)
            if self._wants_continue:
                self._wants_continue = False
                self._connection.write(_CONTINUE)
            self._arrival = asyncio.get_running_loop().create_future()
            await self._arrival
        piece = self._pieces.popleft()
        self._unread_bytes -= len(piece)
        if self._unread_bytes <= HIGH_WATER_BYTES:
            self._connection.read_on()
        return piece

    def expects_continue(self) -> None:
        self._wants_continue = True

    def feed(self, piece: bytes) -> None:
        """A piece of the body has come. What comes behind an answer is thrown away."""
        if self.is_answered:
            return
        size = len(piece)
        self._pieces.append(piece)
        self._unread_bytes += size
        self.received_bytes += size
        self._wake()

    def finish(self) -> None:
        """The body has come whole."""
        self.is_whole = True
        self._wake()

    def spoil(self, sentence: str) -> None:
        """The rest of the body cannot be read, and nothing behind it."""
        self._spoilt = sentence
        self._wake()

    def when_gone(self, call: Callable[[], object]) -> None:
        """Sets `on_gone`; raises Disconnected when the client has gone already."""
        if self.is_gone:
            raise Disconnected
        self.on_gone = call

    def leave(self) -> None:
        """The client has gone."""
        self.is_gone = True
        self._wake()
        on_gone, self.on_gone = self.on_gone, None
        if on_gone is not None and not self.is_answered:
            try:
                on_gone()
            finally:
                self._end(0)

    def abandon(self) -> None:
        """Nothing more is answered: the connection is cut, so that a client that is still there sees it."""
        if not self.is_answered:
            self.keep_alive = False
            self._answered(0)

    def _wake(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    # The answer

    def respond(self, body: bytes | bytearray, status: int = 200, headers: Headers = JSON) -> None:
        """Writes the whole answer; once only."""
        if self._wants_continue:
            self._needs_no_body()
        if status == 200 and headers is JSON and self.keep_alive:
            head = _OK_JSON % len(body)
        else:
            head = self._head(status, headers, (b"content-length: %d\r\n" % len(body),))
        self.sent_bytes = len(body)
        if self.method == "HEAD":
            self._connection.write(head)
        elif len(body) <= _JOIN_BYTES:
            self._connection.write(head + body)
        else:
            self._connection.write(head)
            self._connection.write(body)
        self._answered(status)

    async def stream(self, parts: AsyncIterator[bytes], headers: Headers) -> None:
        """Writes an answer piece by piece as they come, with status 200; its end is the connection's where the client
        does not know chunks. Raises Disconnected, and what the parts raise; then it is to be abandoned."""
        self.is_begun = True
        if self._wants_continue:
            self._needs_no_body()
        is_chunked = self.takes_chunks
        self._connection.write(self._head(200, headers, (b"transfer-encoding: chunked\r\n",) if is_chunked else ()))
        async for part in parts:
            if self.is_gone:
                raise Disconnected
            if part:
                self._connection.write(b"%x\r\n%b\r\n" % (len(part), part) if is_chunked else part)
                self.sent_bytes += len(part)
                await self._connection.drained()
        if is_chunked:
            self._connection.write(b"0\r\n\r\n")
        self._answered(200)

    def _needs_no_body(self) -> None:
        """The client was not told to go on: whether it sends its body all the same nobody knows."""
        if not self.is_whole:
            self.keep_alive = False

    def _head(self, status: int, headers: Headers, more: Iterable[bytes]) -> bytes:
        lines = [_STATUS_LINES[status], *(b"%b: %b\r\n" % header for header in headers), *more]
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        elif any(name == b"connection" and value == b"close" for name, value in headers):
            self.keep_alive = False
        return b"".join((*lines, b"\r\n"))

    def _answered(self, status: int) -> None:
        self.is_answered = self.is_begun = True
        self.on_gone = None
        self._pieces.clear()
        self._unread_bytes = 0
        self._end(status)
        self._connection.answered(self)

    def _end(self, status: int) -> None:
        on_over, self.on_over = self.on_over, None
        if on_over is not None:
            on_over(status)
