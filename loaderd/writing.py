"""Writing to a socket at once.

uvloop keeps what is written to a transport until the end of the event loop's turn. A turn that answers sixty clients
would let all of them wait for the last, and then the process have nothing to do while they think: who works in turns
with another process writes at once, so that both work at the same time.
"""

from __future__ import annotations

import asyncio
import os

Buffer = bytes | bytearray | memoryview


class Writer:
    """Writes to a transport's socket past the transport, while nothing waits in it: the order is kept. What is no
    socket is written to as ever."""

    __slots__ = ("_buffered_bytes", "_descriptor", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        sock = transport.get_extra_info("socket")
        self._descriptor: int | None = None if sock is None else sock.fileno()
        self._buffered_bytes = transport.get_write_buffer_size

    def write(self, data: Buffer) -> None:
        """Hands the data to the kernel, and to the transport what the kernel does not take. The transport finds out by
        itself, and tells, that a connection is lost."""
        descriptor = self._descriptor
        if descriptor is not None and not self._buffered_bytes() and not self._transport.is_closing():
            try:
                sent = os.write(descriptor, data)
            except OSError:  # no room, or broken
                sent = 0
            if sent == len(data):
                return
            if sent:
                data = memoryview(data)[sent:]
        self._transport.write(data)
