"""The gateway's connections to model processes: one to each, shared by all requests."""

from __future__ import annotations

import asyncio
import itertools
import logging
import operator
from collections.abc import AsyncGenerator, Callable, Sequence

import orjson

from loaderd import wire
from loaderd.errors import LoaderdError, ModelNotLoaded, ModelProcessDied, ModelTimeout, Overloaded, from_message
from loaderd.gateway.deadline import Deadline
from loaderd.gateway.routes import Route, Routes

log = logging.getLogger(__name__)

TELL_SECONDS = 0.5  # of one process' door that does not answer: not oftener

OnSilent = Callable[[Route, str], None]
"""Called with a process' route and socket when the table calls it loaded and it took no connection, or lost one with
requests in it."""


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


class Call:
    """A request that waits for a process' answer. Subclasses say what becomes of it; exactly one of `answered` and
    `failed` is called, once, unless the call is dropped first."""

    __slots__ = ("connection", "deadline", "link", "request_id")

    def __init__(self, deadline: Deadline) -> None:
        self.link: Link | None = None
        self.connection: wire.Connection | None = None
        self.request_id = 0
        self.deadline = deadline

    def drop(self) -> None:
        """Tells the process that nobody waits any more, unless the call is over."""
        if self.link is not None:
            self.link.drop(self)

    def answered(self, message: wire.Message) -> None:
        """message: an ANSWER or an ERROR."""
        raise NotImplementedError

    def failed(self, error: Exception) -> None:
        """error: a LoaderdError, or NotComputed."""
        raise NotImplementedError

    def came(self, message: wire.Message) -> None:
        """A PART of a streamed answer came; only who asks for a stream gets one."""

    def broke(self, error: Exception) -> None:
        """One of the above raised `error`, which is in the log already. Nothing more is called."""


class _Awaited(Call):
    """A call that a coroutine waits for."""

    __slots__ = ("answer",)

    def __init__(self, deadline: Deadline) -> None:
        super().__init__(deadline)
        self.answer: asyncio.Future[wire.Message] = asyncio.get_running_loop().create_future()

    def answered(self, message: wire.Message) -> None:
        if not self.answer.done():
            self.answer.set_result(message)

    def failed(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class _Streamed(Call):
    """A call whose answer comes in parts. The deadline begins anew with each part."""

    __slots__ = ("coming",)

    def __init__(self, deadline: Deadline) -> None:
        super().__init__(deadline)
        self.coming: asyncio.Queue[wire.Message | Exception] = asyncio.Queue()

    def answered(self, message: wire.Message) -> None:
        self.coming.put_nowait(message)

    def failed(self, error: Exception) -> None:
        self.coming.put_nowait(error)

    def came(self, message: wire.Message) -> None:
        self.deadline = Deadline.after(self.deadline.seconds)
        self.coming.put_nowait(message)


class Link:
    """One connection to one model process, made at the first request and again after it broke.

    in_flight: requests that wait for an answer, those that wait for the connection included.
    """

    def __init__(self, route: Route, path: str, on_silent: OnSilent) -> None:
        self._on_silent = on_silent
        self._told_at = float("-inf")
        self._path = path  # of its process' socket, for as long as the link lives
        self.route = route  # the newest that the supervisor told; its state words the error of a lost connection
        self.in_flight = 0
        self._connection: wire.Connection | None = None
        self._connecting: asyncio.Task[wire.Connection] | None = None
        self._waiting: dict[int, Call] = {}
        self._ids = itertools.count(1)
        self._retired = False
        self._timer: asyncio.TimerHandle | None = None  # one for all calls, for the one that is due first

    @property
    def has_room(self) -> bool:
        return self.in_flight < self.route.max_queue + self.route.max_batch_size

    def require_room(self) -> None:
        """Raises Overloaded when as many requests wait for an answer as the process can hold."""
        if not self.has_room:
            raise Overloaded(
                f"{self.route.model_id} has {self.in_flight} requests waiting, which is its limit; "
                "try again in a moment.",
                model_id=self.route.model_id,
                queued=self.in_flight,
            )

    async def ask(self, kind: wire.Kind, head: bytes, chunks: Sequence[bytes], deadline: Deadline) -> wire.Message:
        """The model process's answer or error. Raises Overloaded, ModelTimeout, ModelProcessDied, or NotComputed when
        there is no process to connect to.

        When cancelled it tells the process that nobody waits any more.
        """
        self.require_room()
        connection = await self._open()
        call = _Awaited(deadline)
        self._begin(connection, call, kind, head, chunks)
        try:
            return await call.answer
        except asyncio.CancelledError:
            self.drop(call)
            raise

    async def stream(
        self, kind: wire.Kind, head: bytes, chunks: Sequence[bytes], deadline: Deadline
    ) -> AsyncGenerator[wire.Message, None]:
        """The PARTs of the answer as they come and, as the last, the ANSWER or ERROR. Raises as `ask` does; closing it
        tells the process that nobody waits any more. The deadline holds for the time between two messages."""
        self.require_room()
        connection = await self._open()
        call = _Streamed(deadline)
        self._begin(connection, call, kind, head, chunks)
        try:
            while True:
                message = await call.coming.get()
                if isinstance(message, Exception):
                    raise message
                yield message
                if message.kind != wire.Kind.PART:
                    return
        finally:
            self.drop(call)

    def try_start(self, call: Call, kind: wire.Kind, head: bytes, chunks: Sequence[bytes]) -> bool:
        """Sends a request at once; False, and nothing was done, where there is no open connection or no room."""
        connection = self._connection
        if connection is None or not connection.is_open or not self.has_room:
            return False
        self._begin(connection, call, kind, head, chunks)
        return True

    def drop(self, call: Call, reason: bytes = b"gone") -> None:
        """Tells the process that nobody waits for this call any more, unless it is over."""
        if self._waiting.get(call.request_id) is call:
            assert call.connection is not None
            call.connection.cancel(call.request_id, reason)
            self._over(call)

    def retire(self) -> None:
        """Closes the connection once the requests in flight are answered."""
        self._retired = True
        if self._connection is not None and not self._waiting:
            self._connection.close()

    def _begin(
        self, connection: wire.Connection, call: Call, kind: wire.Kind, head: bytes, chunks: Sequence[bytes]
    ) -> None:
        request_id = call.request_id = next(self._ids) & 0xFFFFFFFF
        call.link, call.connection = self, connection
        self._waiting[request_id] = call
        self.in_flight += 1
        timer = self._timer
        if timer is None or call.deadline.at < timer.when():
            self._arm(call.deadline.at)
        if self.in_flight > 1:
            connection.send(request_id, kind, head, *chunks)
        else:  # nothing else is likely to follow in this turn
            connection.hold()
            connection.send(request_id, kind, head, *chunks)
            connection.release()

    def _over(self, call: Call) -> None:
        del self._waiting[call.request_id]
        self.in_flight -= 1
        if self._retired and not self._waiting:
            self._retire_now()

    def _retire_now(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._connection is not None:
            self._connection.close()

    async def _open(self) -> wire.Connection:
        """The connection, made if need be. Raises NotComputed."""
        connection = self._connection
        if connection is not None and connection.is_open:
            return connection
        self.in_flight += 1
        try:
            connection = await self._connected()
        finally:
            self.in_flight -= 1
        if self._retired:  # the route went meanwhile, and the process may end at any time
            if not self._waiting:
                connection.close()
            raise NotComputed(self._lost())
        if not connection.is_open:  # accepted by a process that was about to end: nobody is told of that any more
            self._tell_silent()
            raise NotComputed(self._lost())
        return connection

    async def _connected(self) -> wire.Connection:
        """The open connection; concurrent callers share one attempt."""
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect())
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> wire.Connection:
        try:
            _, connection = await asyncio.get_running_loop().create_unix_connection(
                lambda: wire.Connection(self._on_message, self._on_lost), self._path
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
        call = self._waiting.get(message.request_id)
        if call is None:
            return
        try:  # what goes wrong with one call must not end the connection, and with it all others
            if message.kind == wire.Kind.PART:
                call.came(message)
                return
            self._over(call)
            call.answered(message)
        except Exception as error:
            self._broke(call, error)

    def _on_lost(self, connection: wire.Connection) -> None:
        if connection is self._connection:
            self._connection = None
        lost = [call for call in self._waiting.values() if call.connection is connection]
        if lost:
            self._tell_silent()
        for call in lost:
            self._over(call)
            self._fail(call, self._lost())

    def _fail(self, call: Call, error: Exception) -> None:
        try:
            call.failed(error)
        except Exception as unexpected:
            self._broke(call, unexpected)

    def _broke(self, call: Call, error: Exception) -> None:
        log.error("an answer of %s could not be passed on", self.route.model_id, exc_info=error)
        try:
            call.broke(error)
        except Exception:
            log.exception("nor could its client be told")

    def _tell_silent(self) -> None:
        now = asyncio.get_running_loop().time()
        if self.route.is_ready and not self._retired and now - self._told_at >= TELL_SECONDS:
            self._told_at = now
            self._on_silent(self.route, self._path)

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(at, self._time_out)

    def _time_out(self) -> None:
        """Ends the calls whose deadline is over, and waits for the next one's."""
        self._timer = None
        now = asyncio.get_running_loop().time()
        late = [call for call in self._waiting.values() if call.deadline.at <= now]
        try:
            for call in late:
                self.drop(call, b"timeout")
                self._fail(call, self._too_late(call.deadline.seconds))
        finally:
            if self._waiting and self._timer is None:
                self._arm(min(call.deadline.at for call in self._waiting.values()))

    def _too_late(self, seconds: float) -> ModelTimeout:
        return ModelTimeout(
            f"{self.route.model_id} gave no answer within {seconds:g} s; send fewer items at once "
            "or raise PREDICT_TIMEOUT_SECONDS.",
            model_id=self.route.model_id,
            timeout_seconds=seconds,
        )


class Links:
    """A link to each model process that the routes name. on_silent: set by who wants to know."""

    def __init__(self) -> None:
        self.on_silent: OnSilent = lambda route, path: None
        self._links: dict[str, Link] = {}  # by socket path

    def follow(self, routes: Routes) -> None:
        """Retires the links whose process is no longer in the table."""
        present = {path: route for route in routes.models.values() for path in route.sockets}
        by_model = routes.models
        for path in list(self._links):
            link = self._links[path]
            if path in present:
                link.route = present[path]
            else:
                link.route = by_model.get(link.route.model_id, link.route)
                self._links.pop(path).retire()

    def to(self, route: Route) -> Link:
        """The link to a ready route's process; of several, to the one with the fewest requests in flight."""
        if len(route.sockets) == 1:
            return self._at(route, route.sockets[0])
        return min((self._at(route, path) for path in route.sockets), key=_in_flight)

    def _at(self, route: Route, path: str) -> Link:
        link = self._links.get(path)
        if link is None:
            link = self._links[path] = Link(route, path, lambda route, path: self.on_silent(route, path))
        return link


_in_flight = operator.attrgetter("in_flight")
