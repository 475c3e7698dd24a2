"""One client's connection: requests are read one behind the other and answered in that order."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, cast

import httptools
import orjson

from loaderd.gateway.http.exchange import HIGH_WATER_BYTES, Exchange

if TYPE_CHECKING:
    from loaderd.gateway.http.listener import Listener

MAX_HEAD_BYTES = 64 * 1024
LINGER_SECONDS = 2.0  # what a client still sends behind its last answer is thrown away for so long
MAX_PIPELINED = 16  # requests that may wait behind the one in work; then the client is not read any further


class HttpConnection(asyncio.Protocol):
    """Calls `listener.begin` with each exchange when its headers have come; with its body, where that came along.

    since: by the loop's clock, when it began to wait for what it waits for: the rest of a request's head, the next
    request, a client that does not take its answer.
    """

    __slots__ = (
        "_begun",
        "_current",
        "_drain",
        "_head_bytes",
        "_is_leaving",
        "_is_paused",
        "_is_stuck",
        "_listener",
        "_loop",
        "_newest",
        "_parser",
        "_queue",
        "_transport",
        "since",
    )

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._queue: deque[Exchange] = deque()  # behind the current one
        self._current: Exchange | None = None  # the one that is to be answered next
        self._newest: Exchange | None = None  # the one that is being read
        self._begun = False  # the current one was handed to the listener
        self._head_bytes = 0
        self._is_paused = False
        self._is_stuck = False
        self._is_leaving = False
        self._drain: asyncio.Future[None] | None = None
        self.since = 0.0

    # What the exchanges need

    def write(self, data: bytes | bytearray) -> None:
        if self._transport is not None:
            self._transport.write(data)

    async def drained(self) -> None:
        """Returns when the client has taken enough of what was written, or is gone."""
        while self._is_stuck and self._transport is not None:
            if self._drain is None or self._drain.done():
                self._drain = self._loop.create_future()
            await asyncio.shield(self._drain)

    def read_on(self) -> None:
        if self._is_paused and not self._is_stuck and len(self._queue) < MAX_PIPELINED and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()

    def answered(self, exchange: Exchange) -> None:
        """The current exchange has its answer: the next one's turn, once all of this one's body has come."""
        self.since = self._loop.time()
        if not exchange.keep_alive or self._listener.is_stopping:
            if exchange.is_whole:
                self.close()
            else:
                self._linger()
            return
        if exchange.is_whole:
            self._next()
        else:
            self.read_on()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _linger(self) -> None:
        """Closes, but not at once: a client that is still sending would lose the answer to a reset."""
        if self._transport is not None and not self._is_leaving:
            self._is_leaving = True
            self._transport.write_eof()
            self.read_on()
            self._loop.call_later(LINGER_SECONDS, self.close)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    @property
    def is_idle(self) -> bool:
        """Whether no request of it is in work: it waits for the client."""
        return self._current is None or self._current.is_answered or not self._current.method

    @property
    def is_stuck(self) -> bool:
        """Whether the client does not take what was written."""
        return self._is_stuck

    def _next(self) -> None:
        self._current, self._begun = None, False
        if self._queue:
            self._current = self._queue.popleft()
            # Not at once: answers that are there at once would nest as deep as requests wait.
            self._loop.call_soon(self._begin)
        self.read_on()

    def _begin(self) -> None:
        if self._current is not None and not self._begun and self._current.method and self._transport is not None:
            self._begun = True
            self._listener.begin(self._current)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.since = self._loop.time()
        self._listener.opened(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._is_stuck = False
        if self._drain is not None and not self._drain.done():
            self._drain.set_result(None)
        self._listener.closed(self)
        current, self._current = self._current, None
        self._queue.clear()
        if current is not None and not current.is_answered:
            current.leave()

    def pause_writing(self) -> None:
        self._is_stuck = True
        self.since = self._loop.time()
        self._pause_reading()

    def resume_writing(self) -> None:
        self._is_stuck = False
        if self._drain is not None and not self._drain.done():
            self._drain.set_result(None)
        self.read_on()

    def data_received(self, data: bytes) -> None:
        if self._is_leaving:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # the request itself is answered, as HTTP/1.1 (see on_headers_complete)
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, _HeadTooLarge):
                raise
            self._refuse(431, f"The request's head passes {MAX_HEAD_BYTES} bytes.")
            return
        except httptools.HttpParserError as error:
            self._refuse(400, f"This is no HTTP request: {error}.")
            return
        if not self._begun:
            self._begin()
        newest = self._newest
        if newest is not None and newest.unread_bytes > HIGH_WATER_BYTES:
            self._pause_reading()

    def _pause_reading(self) -> None:
        if not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def _refuse(self, status: int, sentence: str) -> None:
        """Answers what cannot be read, and closes: where the next request begins is not known."""
        if self._current is None or self._current.is_answered or not self._begun:
            exchange = Exchange(self)
            exchange.keep_alive = False
            exchange.respond(orjson.dumps({"error": sentence, "code": "bad_request"}), status)
        self._linger()

    # httptools' callbacks

    def on_message_begin(self) -> None:
        self._newest = Exchange(self)
        self._head_bytes = 0
        if self._current is None:
            self._current, self._begun = self._newest, False
            self.since = self._loop.time()
        else:
            self._queue.append(self._newest)
            if len(self._queue) >= MAX_PIPELINED:
                self._pause_reading()

    def on_url(self, url: bytes) -> None:
        assert self._newest is not None
        self._newest.url += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        assert self._newest is not None
        self._newest.headers[name.lower()] = value
        self._count_head(len(name) + len(value))

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            raise _HeadTooLarge

    def on_headers_complete(self) -> None:
        exchange, parser = self._newest, self._parser
        assert exchange is not None
        exchange.method = parser.get_method().decode("latin-1")
        if not parser.should_keep_alive() or parser.should_upgrade() or parser.get_http_version() != "1.1":
            exchange.keep_alive = False
        if b"expect" in exchange.headers and exchange.headers[b"expect"].lower() == b"100-continue":
            exchange.expects_continue()

    def on_body(self, piece: bytes) -> None:
        assert self._newest is not None
        self._newest.feed(piece)

    def on_message_complete(self) -> None:
        exchange, self._newest = self._newest, None
        assert exchange is not None
        exchange.finish()
        if exchange.is_answered and exchange is self._current:  # the answer came before the end of its body
            self._next()


class _HeadTooLarge(Exception):
    """Raised through the parser."""
