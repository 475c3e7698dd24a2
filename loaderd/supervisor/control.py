"""The control socket: commands of this installation's own processes, guarded by the folder's mode 0700."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from loaderd import protocol, wire
from loaderd.errors import LoaderdError

log = logging.getLogger(__name__)

Handle = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


async def serve_control(path: Path, handle: Handle) -> asyncio.Server:
    """Listens; each message is answered with {"result"} or {"error": {code, message, facts}}."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(protocol.ProtocolError, ConnectionError):
            while (message := await protocol.receive_async(reader)) is not None:
                writer.write(protocol.encode(await _answer(handle, message)))
                await writer.drain()
        writer.close()

    return await asyncio.start_unix_server(converse, sock=wire.private_listener(str(path)))


async def _answer(handle: Handle, message: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"result": await handle(message)}
    except LoaderdError as error:
        return {"error": error.to_message()}
    except Exception as error:
        log.exception("the command %s failed", message.get("command"))
        return {"error": LoaderdError(f"loaderd could not run the command: {error}.").to_message()}
