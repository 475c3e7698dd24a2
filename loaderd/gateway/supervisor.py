"""The gateway's end of the channel to its supervisor: tables come in, commands and their answers go both ways."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import socket
from typing import Any

from loaderd import protocol
from loaderd.errors import from_message
from loaderd.gateway.access import Access
from loaderd.gateway.cache import DEFAULT_MAX_BYTES, Cache
from loaderd.gateway.links import Links
from loaderd.gateway.routes import Routes

log = logging.getLogger(__name__)

LOAD_WAIT_SECONDS = 30.0  # until the supervisor has told otherwise
SLOW_REQUEST_SECONDS = 1.0  # likewise


class Supervisor:
    """has_routes: a table came, so that the door knows what there is. load_wait_seconds: how long a prediction may
    wait for its model. sampling_rate: share of the predictions that are traced, 0.0 to 1.0. slow_request_seconds: from
    when on a prediction is logged as slow, infinity for never. cache: the kept answers, by the policy that the
    supervisor told."""

    def __init__(self, access: Access, links: Links) -> None:
        self.routes = Routes()
        self.has_routes = False
        self.load_wait_seconds = LOAD_WAIT_SECONDS
        self.sampling_rate = 0.0
        self.slow_request_seconds = SLOW_REQUEST_SECONDS
        self.cache = Cache()
        self._changed = asyncio.Event()
        self._access = access
        self._links = links
        self._replies: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count(1)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def connect(self, sock: socket.socket) -> None:
        self._reader, self._writer = await asyncio.open_connection(sock=sock)

    def send(self, message: dict[str, Any]) -> None:
        assert self._writer is not None
        self._writer.write(protocol.encode(message))

    async def ask(self, command: str, **facts: Any) -> Any:
        """The result of a command; raises the LoaderdError that the supervisor answered with.

        Waits as long as the operation does: it has its own limit.
        """
        number = next(self._numbers)
        self._replies[number] = asyncio.get_running_loop().create_future()
        try:
            self.send({"request": number, "command": command, **facts})
            return await self._replies[number]
        finally:
            self._replies.pop(number, None)

    async def listen(self) -> None:
        """Takes in what the supervisor says; returns when it is gone."""
        assert self._reader is not None
        while (message := await protocol.receive_async(self._reader)) is not None:
            self._take(message)

    async def change(self) -> None:
        """Returns at the next table, or when somebody calls `wake`."""
        await self._changed.wait()

    def wake(self) -> None:
        """Lets those who wait for a change look again."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _take(self, message: dict[str, Any]) -> None:
        if "reply" in message:
            waiting = self._replies.get(message["reply"])
            if waiting is None or waiting.done():
                return
            if message.get("error"):
                waiting.set_exception(from_message(message["error"]))
            else:
                waiting.set_result(message.get("result"))
        elif message.get("event") == "routes":
            self._follow(message)
            self.send({"event": "routed", "serial": message.get("serial", 0)})
        elif message.get("event") == "forget_answers":
            forgotten = self.cache.forget(message["model_id"])
            self.send({"event": "forgot_answers", "serial": message["serial"], "forgotten": forgotten})
        elif message.get("event") == "access":
            self._access.replace(message["tokens"])
        else:
            log.warning("the supervisor sent something unknown: %s", sorted(message))

    def _follow(self, message: dict[str, Any]) -> None:
        self.routes = Routes.from_message(message["models"], message.get("lineages"))
        settings = message.get("settings", {})
        self.load_wait_seconds = float(settings.get("load_wait_seconds", LOAD_WAIT_SECONDS))
        self.sampling_rate = float(settings.get("sampling_rate", 0.0))
        self.slow_request_seconds = float(settings.get("slow_request_seconds", SLOW_REQUEST_SECONDS)) or math.inf
        self.has_routes = True
        self.cache.max_bytes = int(settings.get("cache_max_bytes", DEFAULT_MAX_BYTES))
        self.cache.follow(self.routes)
        self._links.follow(self.routes)
        self.wake()
