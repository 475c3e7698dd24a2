"""The gateway's connections to model processes: one each, shared by all requests."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence

import orjson

from loaderd import wire
from loaderd.errors import LoaderdError, ModelNotLoaded, ModelProcessDied, ModelTimeout, Overloaded, from_message
from loaderd.gateway.deadline import Deadline
from loaderd.gateway.routes import Route, Routes

TELL_SECONDS = 0.5  # of one process' door that does not answer: not oftener

OnSilent = Callable[[Route], None]
"""Called when a process that the table calls loaded took no connection, or lost one with requests in it."""


class NotComputed(Exception):
    """The process certainly did not work on the request, so that it may be asked again elsewhere.

    error: what the client gets when there is no elsewhere.
    """

    def __init__(self, error: LoaderdError) -> None:
        super().__init__(error.message)
        self.error = error


def require_answer(message: wire.Message) -> wire.Message:
    """The answer of a process; raises the error that it answered with, NotComputed when it was draining already."""
    if message.kind != wire.Kind.ERROR:
        return message
    error = from_message(orjson.loads(message.body))
    if isinstance(error, ModelNotLoaded):
        raise NotComputed(error)
    raise error


class Link:
    """One connection to one model process, made at the first request and again after it broke."""

    def __init__(self, route: Route, on_silent: OnSilent) -> None:
        self._on_silent = on_silent
        self._told_at = float("-inf")
        self._socket = route.socket  # of its process, for as long as the link lives
        self.route = route  # the newest that the supervisor told; its state words the error of a lost connection
        self._connection: wire.Connection | None = None
        self._connecting: asyncio.Task[wire.Connection] | None = None
        self._waiting: dict[int, tuple[wire.Connection, asyncio.Future[wire.Message]]] = {}
        self._ids = itertools.count(1)
        self._in_flight = 0  # those that wait for the connection included
        self._retired = False

    def require_room(self) -> None:
        """Raises Overloaded when as many requests wait for an answer as the process can hold."""
        if self._in_flight >= self.route.max_queue + self.route.max_batch_size:
            raise Overloaded(
                f"{self.route.model_id} has {self._in_flight} requests waiting, which is its limit; "
                "try again in a moment.",
                model_id=self.route.model_id,
                queued=self._in_flight,
            )

    async def ask(self, kind: wire.Kind, head: bytes, chunks: Sequence[bytes], deadline: Deadline) -> wire.Message:
        """The model process's answer or error. Raises Overloaded, ModelTimeout, ModelProcessDied, or NotComputed when
        there is no process to connect to.

        When cancelled it tells the process that nobody waits any more.
        """
        self.require_room()
        self._in_flight += 1
        try:
            return await self._ask(kind, head, chunks, deadline)
        finally:
            self._in_flight -= 1

    async def _ask(self, kind: wire.Kind, head: bytes, chunks: Sequence[bytes], deadline: Deadline) -> wire.Message:
        loop = asyncio.get_running_loop()
        connection = self._connection
        if connection is None or not connection.is_open:
            connection = await self._connected()
            if self._retired:  # the route went meanwhile, and the process may end at any time
                if not self._waiting:
                    connection.close()
                raise NotComputed(self._lost())
            if not connection.is_open:  # accepted by a process that was about to end: nobody is told of that any more
                self._tell_silent()
                raise NotComputed(self._lost())
        request_id = next(self._ids) & 0xFFFFFFFF
        answer: asyncio.Future[wire.Message] = loop.create_future()
        self._waiting[request_id] = (connection, answer)
        timer = loop.call_at(deadline.at, self._time_out, request_id, deadline.seconds)
        try:
            connection.send(request_id, kind, head, *chunks)
            message = await answer
        except asyncio.CancelledError:
            connection.cancel(request_id, b"gone")
            raise
        finally:
            timer.cancel()
            self._waiting.pop(request_id, None)
            if self._retired and not self._waiting:
                connection.close()
        return message

    def retire(self) -> None:
        """Closes the connection once the requests in flight are answered."""
        self._retired = True
        if self._connection is not None and not self._waiting:
            self._connection.close()

    async def _connected(self) -> wire.Connection:
        """The open connection; concurrent callers share one attempt."""
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect())
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> wire.Connection:
        try:
            _, connection = await asyncio.get_running_loop().create_unix_connection(
                lambda: wire.Connection(self._on_message, self._on_lost), self._socket
            )
        except OSError:
            self._tell_silent()
            raise NotComputed(self._lost()) from None
        self._connection = connection
        return connection

    def _lost(self) -> LoaderdError:
        model_id = self.route.model_id
        if not self.route.is_ready:
            return ModelNotLoaded(
                f"{model_id} is {self.route.state}: its process ended before it answered; load it again to use it.",
                model_id=model_id,
            )
        return ModelProcessDied(
            f"The process of {model_id} ended before it answered; it is restarted when the model should be loaded. "
            "Try again in a moment.",
            model_id=model_id,
        )

    def _on_message(self, _connection: wire.Connection, message: wire.Message) -> None:
        _, answer = self._waiting.get(message.request_id, (None, None))
        if answer is not None and not answer.done():
            answer.set_result(message)

    def _on_lost(self, connection: wire.Connection) -> None:
        if connection is self._connection:
            self._connection = None
        for over, answer in self._waiting.values():
            if over is connection and not answer.done():
                answer.set_exception(self._lost())
                self._tell_silent()

    def _tell_silent(self) -> None:
        now = asyncio.get_running_loop().time()
        if self.route.is_ready and not self._retired and now - self._told_at >= TELL_SECONDS:
            self._told_at = now
            self._on_silent(self.route)

    def _time_out(self, request_id: int, timeout_seconds: float) -> None:
        connection, answer = self._waiting[request_id]
        if answer.done():
            return
        connection.cancel(request_id, b"timeout")
        answer.set_exception(
            ModelTimeout(
                f"{self.route.model_id} gave no answer within {timeout_seconds:g} s; send fewer items at once "
                "or raise PREDICT_TIMEOUT_SECONDS.",
                model_id=self.route.model_id,
                timeout_seconds=timeout_seconds,
            )
        )


class Links:
    """A link for each model process that the routes name. on_silent: set by who wants to know."""

    def __init__(self) -> None:
        self.on_silent: OnSilent = lambda route: None
        self._links: dict[str, Link] = {}  # by socket path

    def follow(self, routes: Routes) -> None:
        """Retires the links whose process is no longer in the table."""
        present = {route.socket: route for route in routes.models.values() if route.socket is not None}
        by_model = routes.models
        for path in list(self._links):
            link = self._links[path]
            if path in present:
                link.route = present[path]
            else:
                link.route = by_model.get(link.route.model_id, link.route)
                self._links.pop(path).retire()

    def to(self, route: Route) -> Link:
        """The link to a ready route's process."""
        assert route.socket is not None
        link = self._links.get(route.socket)
        if link is None:
            link = self._links[route.socket] = Link(route, lambda route: self.on_silent(route))
        return link
