"""Frames between the gateway and a model process: many requests on one unix stream, bodies as raw bytes.

A message has a request id, a kind, a small head (JSON) and a body. It travels as one frame, or as several
when the body is large; frames of different messages interleave, so that a 64 MB body does not hold up the
small ones behind it. Each side chooses the ids of the requests it makes. Standard library only.

Heads:
  INFER    JSON: {"name": as what the model answers, "header_bytes": length of the JSON part of the body or null,
           "trace": true if the answer shall tell where its time went (left out: no),
           "usage": true if it shall tell how many tokens there were, "bulk": true if others go first}
  PREDICT  empty, or JSON: {"trace", "bulk"} as above
  GENERATE empty, or JSON: {"trace"} as above
  CANCEL   the reason: "gone" or "timeout"
  PING     empty; answered at once, with an empty ANSWER
  ANSWER   of an untraced request: empty, or the length of the JSON part of the body in decimal digits.
           Of a traced one, so beginning with "{": {"header_bytes": that length or null, "trace": {"queue_seconds":
           from arrival to the first model call, "compute_seconds": sum of the model calls that it was part of,
           "items": in the request, "batch_items": in the largest of those calls, null of generated text}};
           likewise with "usage": {"tokens": in the request} where that was asked for, and for one with "bulk", while
           others are answered, "others_seconds": their mean latency in the model process
  PART     empty
  ERROR    empty; of a traced request that the model got to, JSON: {"trace": as above}
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import cast

from loaderd.writing import Buffer, Writer

_HEADER = struct.Struct("!IBBHI")  # request id, kind, more frames follow, head bytes, body bytes
FRAGMENT_BYTES = 256 * 1024
FLUSH_MESSAGES = 8  # that are gathered, then the other side may begin with them
FLUSH_BYTES = 64 * 1024
HIGH_WATER_BYTES = 1024 * 1024  # beyond it large bodies wait in the sender, not in the transport
LISTEN_BACKLOG = 256
MAX_BODY_BYTES = 512 * 1024 * 1024  # of one message; a peer that sends more is cut off


class Kind(IntEnum):
    """What a message is. The gateway asks (INFER, PREDICT, GENERATE, CANCEL), the supervisor knocks (PING), the model
    process answers."""

    INFER = 1  # body: an Open Inference Protocol request
    PREDICT = 2  # body: {"inputs": [...]}
    CANCEL = 3  # nobody waits any more
    ANSWER = 4  # body: the response
    ERROR = 5  # body: LoaderdError.to_message() as JSON
    PING = 6  # does anybody answer here? No request: it is not counted
    GENERATE = 7  # body: a request for generated text (loaderd.worker.generating)
    PART = 8  # body: a piece of an answer that comes in several; the last of them is an ANSWER or an ERROR


@dataclass(slots=True)
class Message:
    request_id: int
    kind: int
    head: bytes
    body: bytes | bytearray


def private_listener(path: str) -> socket.socket:
    """A unix socket that listens at `path`, replacing a dead one, and that only this user may open.

    It listens at once: who sees the path may connect, and is accepted as soon as the server runs.
    """
    Path(path).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(path)
        listener.listen(LISTEN_BACKLOG)
    finally:
        os.umask(before)
    return listener


class _Outgoing:
    """A message that waits for room, cut into frames."""

    __slots__ = ("_frames", "_next", "request_id")

    def __init__(self, request_id: int, kind: Kind, head: bytes, chunks: tuple[Buffer, ...]) -> None:
        self.request_id = request_id
        self._frames = _fragments(request_id, kind, head, chunks)
        self._next = next(self._frames, None)

    def take(self) -> tuple[bytes, Buffer] | None:
        frame, self._next = self._next, next(self._frames, None)
        return frame

    @property
    def empty(self) -> bool:
        return self._next is None


def _pieces(chunks: tuple[Buffer, ...]) -> Iterator[memoryview]:
    for chunk in chunks:
        view = memoryview(chunk)
        for start in range(0, len(view), FRAGMENT_BYTES):
            yield view[start : start + FRAGMENT_BYTES]


def _fragments(request_id: int, kind: Kind, head: bytes, chunks: tuple[Buffer, ...]) -> Iterator[tuple[bytes, Buffer]]:
    pieces = _pieces(chunks)
    piece: Buffer = next(pieces, memoryview(b""))
    for following in pieces:
        yield _HEADER.pack(request_id, kind, 1, len(head), len(piece)) + head, piece
        head, piece = b"", following
    yield _HEADER.pack(request_id, kind, 0, len(head), len(piece)) + head, piece


class Connection(asyncio.Protocol):
    """One end of the stream. Calls `on_message` for each whole message, `on_read` behind all that one read brought,
    and `on_lost` once, at the end."""

    def __init__(
        self,
        on_message: Callable[[Connection, Message], None],
        on_lost: Callable[[Connection], None],
        on_read: Callable[[], None] | None = None,
    ) -> None:
        self._on_message = on_message
        self._on_lost = on_lost
        self._on_read = on_read
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._outgoing: deque[_Outgoing] = deque()
        self._writer: Writer | None = None
        self._gathered: list[Buffer] = []  # small messages of this turn of the event loop: a system call for several
        self._gathered_messages = 0
        self._gathered_bytes = 0
        self._is_held = False
        self._flushed: asyncio.Future[None] | None = None
        self._rest = b""  # the beginning of a frame's header and head
        self._partial: dict[int, Message] = {}  # messages of which more frames follow
        self._filling: Message | None = None  # the message whose frame is being read
        self._missing_bytes = 0
        self._more_frames = False

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(self, request_id: int, kind: Kind, head: bytes, *chunks: Buffer) -> None:
        """Sends a message, or keeps it until the peer reads on; the chunks must not change meanwhile.

        Memoryviews must be of bytes. Never blocks; who sends bounds what it has in flight. Nothing is
        sent on a lost connection.
        """
        if not self.is_open:
            return
        size = sum(len(chunk) for chunk in chunks)
        if size <= FRAGMENT_BYTES and not self._paused:
            if not self._gathered and not self._is_held:
                asyncio.get_running_loop().call_soon(self._write_gathered)
            self._gathered.append(_HEADER.pack(request_id, kind, 0, len(head), size) + head)
            self._gathered.extend(chunks)
            self._gathered_messages += 1
            self._gathered_bytes += size
            if self._gathered_messages >= FLUSH_MESSAGES or self._gathered_bytes >= FLUSH_BYTES:
                self._write_gathered()
        else:
            self._outgoing.append(_Outgoing(request_id, kind, head, chunks))
            self._pump()

    def hold(self) -> None:
        """What is sent from now on waits for `release`, or until there is enough of it, not for the turn's end."""
        self._is_held = True

    def release(self) -> None:
        """Writes what was held."""
        self._is_held = False
        self._write_gathered()

    def cancel(self, request_id: int, reason: bytes) -> None:
        """Tells the peer that nobody waits for an answer; what was not yet sent of the request is not sent."""
        self._outgoing = deque(waiting for waiting in self._outgoing if waiting.request_id != request_id)
        self.send(request_id, Kind.CANCEL, reason)

    def _write_gathered(self) -> None:
        buffers, size = self._gathered, self._gathered_bytes
        if not buffers:
            return
        self._gathered, self._gathered_messages, self._gathered_bytes = [], 0, 0
        if self._transport is not None and self._writer is not None and self.is_open:
            if size < FLUSH_BYTES:
                self._writer.write(b"".join(buffers))
            else:
                self._transport.writelines(buffers)

    async def flush(self) -> None:
        """Returns when the kernel has taken everything, or the connection is lost."""
        self._write_gathered()
        while self.is_open:
            assert self._transport is not None
            self._transport.set_write_buffer_limits(high=0)
            if not self._outgoing and not self._transport.get_write_buffer_size():
                break
            self._flushed = asyncio.get_running_loop().create_future()
            await self._flushed
        if self.is_open and self._transport is not None:
            self._transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)

    def close(self) -> None:
        self._write_gathered()
        if self._transport is not None:
            self._transport.close()

    def _pump(self) -> None:
        """Sends a frame of each waiting message in turn until the transport has enough."""
        while self._outgoing and not self._paused and self._transport is not None:
            waiting = self._outgoing.popleft()
            frame = waiting.take()
            if not waiting.empty:
                self._outgoing.append(waiting)
            if frame is not None:
                self._transport.writelines(frame)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._writer = Writer(self._transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)

    def connection_lost(self, error: Exception | None) -> None:
        self._paused = True
        self._outgoing.clear()
        self._partial.clear()
        self._filling = None
        self._wake_flush()
        self._on_lost(self)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._pump()
        self._wake_flush()

    def _wake_flush(self) -> None:
        if self._flushed is not None and not self._flushed.done():
            self._flushed.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._take(data)
        if self._on_read is not None:
            self._on_read()

    def _take(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at, end = 0, len(data)
        while self.is_open:
            if self._filling is not None:
                at += self._fill(memoryview(data)[at : at + self._missing_bytes])
                if self._missing_bytes:
                    return
                self._frame_complete()
                continue
            if end - at < _HEADER.size:
                break
            request_id, kind, more, head_bytes, body_bytes = _HEADER.unpack_from(data, at)
            body_at = at + _HEADER.size + head_bytes
            if end < body_at:
                break
            if not more and body_at + body_bytes <= end and request_id not in self._partial:
                head = data[at + _HEADER.size : body_at]
                at = body_at + body_bytes
                self._on_message(self, Message(request_id, kind, head, data[body_at:at]))
                continue
            if kind == Kind.CANCEL:
                self._partial.pop(request_id, None)
            known = self._partial.get(request_id)
            if known is None:
                known = Message(request_id, kind, data[at + _HEADER.size : body_at], bytearray())
            if len(known.body) + body_bytes > MAX_BODY_BYTES:
                self.close()
                return
            self._filling, self._missing_bytes, self._more_frames = known, body_bytes, bool(more)
            at = body_at
        self._rest = data[at:]

    def _fill(self, piece: memoryview) -> int:
        assert self._filling is not None
        assert isinstance(self._filling.body, bytearray)
        self._filling.body += piece
        self._missing_bytes -= len(piece)
        return len(piece)

    def _frame_complete(self) -> None:
        message, self._filling = self._filling, None
        assert message is not None
        if self._more_frames:
            self._partial[message.request_id] = message
        else:
            self._partial.pop(message.request_id, None)
            self._on_message(self, message)
