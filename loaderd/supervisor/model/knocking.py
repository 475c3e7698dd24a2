"""Does a model's process answer where clients ask it? Its channel to the supervisor is another descriptor, and tells
nothing of its data socket."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from loaderd import wire


async def knock(data_socket: Path, timeout_seconds: float) -> bool | None:
    """True: it took a connection and answered. False: nobody listens there, or the connection was closed unanswered.
    None: no answer came in time. Raises OSError when this process cannot connect to anything."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bool] = loop.create_future()

    def settle(answered: bool) -> None:
        if not answer.done():
            answer.set_result(answered)

    connection = wire.Connection(lambda _connection, _message: settle(True), lambda _connection: settle(False))
    try:
        async with asyncio.timeout(timeout_seconds):
            await loop.create_unix_connection(lambda: connection, str(data_socket))
            connection.send(0, wire.Kind.PING, b"")
            return await answer
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    except TimeoutError:
        return None
    finally:
        with contextlib.suppress(OSError):
            connection.close()
