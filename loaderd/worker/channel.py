"""The model process's end of the channel to its supervisor."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

from loaderd import protocol
from loaderd.states import LoadPhase


class Channel:
    """Sends events; reads commands. When the supervisor is gone the process ends at once."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._reported: tuple[LoadPhase | None, float] = (None, 0.0)

    @classmethod
    async def over(cls, sock: socket.socket) -> Channel:
        reader, writer = await asyncio.open_connection(sock=sock)
        writer.transport.set_write_buffer_limits(high=0)  # so that drain() returns when all is sent
        return cls(reader, writer)

    def send(self, message: dict[str, Any]) -> None:
        self._writer.write(protocol.encode(message))

    async def send_and_flush(self, message: dict[str, Any]) -> None:
        self.send(message)
        await self._writer.drain()

    def report_phase(self, phase: LoadPhase, progress: float) -> None:
        """Sends the phase's progress, but not every hair's breadth of it."""
        before, at = self._reported
        if phase == before and progress < 1.0 and progress - at < 0.01:
            return
        self._reported = (phase, progress)
        self.send({"event": "phase", "phase": phase, "progress": round(min(max(progress, 0.0), 1.0), 3)})

    async def receive(self) -> dict[str, Any]:
        """The next command. Does not return when the supervisor is gone: nobody would end this process later."""
        message = await protocol.receive_async(self._reader)
        if message is None:
            os._exit(0)
        return message
