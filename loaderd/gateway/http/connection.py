"""One client's connection: requests are read one behind the other and answered in that order."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, cast

import httptools
import orjson

from loaderd.gateway.http.exchange import HIGH_WATER_BYTES, Exchange
from loaderd.writing import Writer

if TYPE_CHECKING:
    from loaderd.gateway.http.listener import Listener

MAX_HEAD_BYTES = 64 * 1024
_HEAD_TOO_LARGE = (431, f"The request's head passes {MAX_HEAD_BYTES} bytes.")
MAX_COMBINED_BYTES = 8 * 1024  # of a header that comes in several lines: each line copies those before it
# What these say decides who asks, whom, and where the next request begins: of two nobody knows which one counts. Of
# content-length and transfer-encoding the parser refuses what does not agree.
ONCE = frozenset({b"authorization", b"content-type", b"host", b"x-modelhub-user"})
LINGER_SECONDS = 2.0  # what a client still sends behind its last answer is thrown away for so long
MAX_PIPELINED = 16  # requests that may wait behind the one in work; then the client is not read any further
MAX_AT_ONCE = 1024  # that one read may bring nevertheless


class HttpConnection(asyncio.Protocol):
    """Calls `listener.begin` with each exchange when its headers have come; with its body, where that came along.

    since: by the loop's clock, when it began to wait for what it waits for: the rest of a request's head, the next
    request, a client that does not take its answer. unsent_bytes: what its client had not taken at the last look.
    """

    __slots__ = (
        "_begun",
        "_current",
        "_drain",
        "_has_ended",
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
        "_unparsed_bytes",
        "_writer",
        "since",
        "unsent_bytes",
    )

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._writer: Writer | None = None
        self._queue: deque[Exchange] = deque()  # behind the current one
        self._current: Exchange | None = None  # the one that is to be answered next
        self._newest: Exchange | None = None  # the one that is being read
        self._begun = False  # the current one was handed to the listener
        self._head_bytes = 0
        self._unparsed_bytes = 0  # that came since the parser last told of something new
        self._is_paused = False
        self._is_stuck = False
        self._is_leaving = False  # what still comes is thrown away
        self._has_ended = False  # nothing more may be written
        self._drain: asyncio.Future[None] | None = None
        self.since = 0.0
        self.unsent_bytes = 0

    # What the exchanges need

    def write(self, data: bytes | bytearray) -> None:
        """Behind the end of the connection it does nothing."""
        if self._writer is not None and not self._has_ended:
            self._writer.write(data)

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
        self._has_ended = True
        if self._transport is not None:
            self._transport.close()

    def _linger(self) -> None:
        """Closes, but not at once: a client that is still sending would lose the answer to a reset."""
        self._is_leaving = True
        if self._transport is not None and not self._has_ended:
            self._has_ended = True
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

    def look(self, now: float, patience_seconds: float) -> None:
        """Closes the connection when nothing was heard of the client for so long: it sent no request, or took nothing
        of what was written. Who takes an answer slowly is waited for."""
        unsent_bytes = 0 if self._transport is None else self._transport.get_write_buffer_size()
        if unsent_bytes < self.unsent_bytes:
            self.since = now
        elif now - self.since > patience_seconds and (self._is_stuck or self.is_idle):
            if unsent_bytes:
                self.abort()  # a close would wait for the client
            else:
                self.close()
        self.unsent_bytes = unsent_bytes

    def _next(self) -> None:
        self._current, self._begun = None, False
        if self._queue:
            self._current = self._queue.popleft()
            # Not at once: answers that are there at once would nest as deep as requests wait.
            self._loop.call_soon(self._begin)
        self.read_on()

    def _begin(self) -> None:
        """Hands on the current exchange; one whose answer the client would not take yet waits."""
        current = self._current
        if (
            current is not None
            and not self._begun
            and current.method
            and not self._is_stuck
            and self._transport is not None
        ):
            self._begun = True
            self._listener.begin(current)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._writer = Writer(self._transport)
        self.since = self._loop.time()
        self._listener.opened(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = self._writer = None
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
        self._loop.call_soon(self._begin)
        self.read_on()

    def data_received(self, data: bytes) -> None:
        if self._is_leaving:
            return
        self._unparsed_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # the request itself is answered, as HTTP/1.1 (see on_headers_complete)
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, _Refused):
                raise
            self._refuse(*error.__context__.args)
            return
        except httptools.HttpParserError as error:
            self._refuse(400, f"This is no HTTP request: {error}.")
            return
        if not self._begun:
            self._begin()
        if self._unparsed_bytes > 2 * MAX_HEAD_BYTES:  # the parser keeps what it has of a header, and joins it
            self._refuse(*_HEAD_TOO_LARGE)
            return
        newest = self._newest
        if newest is not None and newest.unread_bytes > HIGH_WATER_BYTES:
            self._pause_reading()

    def _pause_reading(self) -> None:
        if not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def _refuse(self, status: int, sentence: str) -> None:
        """Answers what cannot be read, and closes: where the next request begins is not known. What came before it is
        answered first; the last of that then ends the connection."""
        self._is_leaving = True
        broken, self._newest = self._newest, None
        if broken is not None and not broken.method:  # nobody has seen it
            if broken is self._current:
                self._current = None
            else:
                self._queue.pop()
        elif broken is not None:
            broken.spoil(sentence)
        last = self._queue[-1] if self._queue else self._current
        if last is not None and not last.is_answered:
            last.keep_alive = False
            return
        exchange = Exchange(self)
        exchange.keep_alive = False
        exchange.respond(orjson.dumps({"error": sentence, "code": "bad_request"}), status)

    # httptools' callbacks

    def on_message_begin(self) -> None:
        if len(self._queue) >= MAX_AT_ONCE:
            raise _Refused(400, f"More than {MAX_AT_ONCE} requests came at once; wait for answers in between.")
        self._newest = Exchange(self)
        self._head_bytes = self._unparsed_bytes = 0
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
        if not self._newest.method:  # else it stands behind a chunked body, where it means nothing
            name, headers = name.lower(), self._newest.headers
            headers[name] = _combined(name, headers[name], value) if name in headers else value
        self._count_head(len(name) + len(value))

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            raise _Refused(*_HEAD_TOO_LARGE)

    def on_headers_complete(self) -> None:
        exchange, parser = self._newest, self._parser
        assert exchange is not None
        exchange.method = parser.get_method().decode("latin-1")
        self._unparsed_bytes = 0
        if not parser.should_keep_alive() or parser.should_upgrade() or parser.get_http_version() != "1.1":
            exchange.keep_alive = False
            exchange.takes_chunks = parser.get_http_version() == "1.1"
        if b"expect" in exchange.headers and exchange.headers[b"expect"].lower() == b"100-continue":
            exchange.expects_continue()

    def on_body(self, piece: bytes) -> None:
        assert self._newest is not None
        self._unparsed_bytes = 0
        self._newest.feed(piece)

    def on_message_complete(self) -> None:
        exchange, self._newest = self._newest, None
        assert exchange is not None
        exchange.finish()
        if exchange.is_answered and exchange is self._current:  # the answer came before the end of its body
            self._next()


def _combined(name: bytes, first: bytes, value: bytes) -> bytes:
    """The value of a header that comes in several lines (RFC 9110, 5.3). Raises _Refused."""
    if name in ONCE:
        raise _Refused(400, f"The header {name.decode('latin-1')} may come once only.")
    combined = first + (b"; " if name == b"cookie" else b", ") + value
    if len(combined) > MAX_COMBINED_BYTES:
        raise _Refused(431, f"The lines of one header pass {MAX_COMBINED_BYTES} bytes together.")
    return combined


class _Refused(Exception):
    """Raised through the parser, with a status and a sentence."""
