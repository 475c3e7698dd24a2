"""Who answers what at the inference door: the rooms behind the paths, tokens, errors, and what is counted of each door.

On the TCP door every route needs a token but GET /v2/health/live and /v2/health/ready, which load balancers
ask and which tell nothing else. The private door (a unix socket in a folder of mode 0700) needs none.

live: this process runs. ready: the supervisor is connected and has told which models there are, whether
none or many, and whatever they are doing. A model is ready when that version is loaded: 200, else 503.
A prediction from a model that is registered but not loaded is 409 with what to do next; an unknown one is 404.
"""

from __future__ import annotations

import asyncio
import logging
import urllib.parse
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from loaderd import wire
from loaderd.errors import InvalidInput, LoaderdError, ModelProcessDied, ModelRestarting, NotAuthenticated, Overloaded
from loaderd.gateway.access import ALL_PERMISSIONS, Access, Caller
from loaderd.gateway.body import Body, BodyTooSlow, Budget
from loaderd.gateway.compressing import SMALL_BYTES, compressed, encoding_for
from loaderd.gateway.deadline import Deadline
from loaderd.gateway.http.exchange import JSON, Disconnected, Exchange, Headers
from loaderd.gateway.links import Links
from loaderd.gateway.metrics import CONTENT_TYPE, DoorCounts, counts_of, exposition, with_others
from loaderd.gateway.observing import figures
from loaderd.gateway.observing.course import Course
from loaderd.gateway.predicting import Predictor
from loaderd.gateway.quick import Quick
from loaderd.gateway.routes import Route
from loaderd.gateway.supervisor import Supervisor
from loaderd.gateway.tally import Ledger

log = logging.getLogger(__name__)

BINARY: tuple[bytes, bytes] = (b"content-type", b"application/octet-stream")
HEADER_LENGTH = b"inference-header-content-length"
_METRICS_SECONDS = 5.0


class NoSuchPath(LoaderdError):
    code = "not_found"
    http_status = 404


class MethodNotAllowed(LoaderdError):
    code = "method_not_allowed"
    http_status = 405


class NotReady(LoaderdError):
    code = "not_ready"
    http_status = 503


@dataclass(slots=True)
class Response:
    body: bytes | bytearray
    status: int = 200
    headers: Headers = JSON


@dataclass(slots=True)
class Streamed:
    """An answer with status 200 that is sent as it is made, piece by piece. Whoever makes one waits for the first piece
    before: what fails until then is an error with its status."""

    parts: AsyncGenerator[bytes, None]
    headers: Headers


Answer = Response | Streamed


def json_response(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status)


@dataclass(slots=True)
class Request:
    """One request at the door. caller: set by `Front` before a room sees it. on_gone(call): has `call` called when the
    client leaves before it has its answer; it raises Disconnected when that has happened. course: of a prediction, for
    what is told of it when it is over."""

    method: str
    path: str
    parts: list[str]
    headers: dict[bytes, bytes]
    body: Body
    deadline: Deadline
    began: float
    on_gone: Callable[[Callable[[], object]], None]
    caller: Caller
    is_traced: bool | None = None
    course: Course | None = None

    def require_method(self, method: str) -> None:
        if self.method != method:
            raise MethodNotAllowed(f"{self.path} answers {method}, not {self.method}.")

    def require(self, permission: str) -> None:
        self.caller.require(permission)

    def leave_with_client(self) -> None:
        """From now on this task is cancelled when the client leaves: nobody computes for nobody. Raises Disconnected
        when it has left."""
        task = asyncio.current_task()
        assert task is not None
        self.on_gone(task.cancel)

    async def pieces(self) -> list[bytes]:
        encoding = self.headers.get(b"content-encoding")
        return await self.body.read(
            self.whole_number(b"content-length"), encoding.decode("latin-1").lower() if encoding else None
        )

    async def json(self) -> Any:
        """The body as JSON, {} when it is empty; raises InvalidInput."""
        text = b"".join(await self.pieces())
        try:
            return orjson.loads(text) if text.strip() else {}
        except orjson.JSONDecodeError as error:
            raise InvalidInput(f"The request's JSON cannot be read: {error}.") from None

    def whole_number(self, header: bytes) -> int | None:
        value = self.headers.get(header)
        if value is None:
            return None
        if not value.isdigit() or len(value) > 18:
            raise InvalidInput(f"The header {header.decode()} must be a whole number, not {value[:40]!r}.")
        return int(value)


class Room(Protocol):
    """Answers all paths under one beginning; rest: the path's parts behind it. Raises LoaderdError.

    error: the answer that tells of an error in the way that the room's clients know.
    """

    async def handle(self, request: Request, rest: list[str]) -> Answer: ...

    def error(self, error: LoaderdError) -> Response: ...


NOBODY = Caller("", frozenset())


@dataclass(slots=True)
class Gateway:
    """What both doors share.

    predict_timeout_seconds: from a request's first byte until it is answered with 408 (its body has not come),
    429 (no memory for it) or 504 (no prediction). shares_port: other gateways listen on its port, and what all of them
    count is told together.
    """

    access: Access
    links: Links
    supervisor: Supervisor
    predict_timeout_seconds: float
    shares_port: bool = False
    budget: Budget = field(default_factory=Budget)
    ledger: Ledger = field(default_factory=Ledger)
    predictor: Predictor = field(init=False)
    doors: dict[str, DoorCounts] = field(default_factory=lambda: {"public": DoorCounts(), "private": DoorCounts()})

    def __post_init__(self) -> None:
        self.links.on_silent = lambda route, path: self.supervisor.send(
            {"event": "silent", "model_id": route.model_id, "socket": path}
        )
        self.predictor = Predictor(self.links, self.supervisor, self.ledger, self.predict_timeout_seconds)

    async def report_every(self, seconds: float) -> None:
        """Tells the supervisor again and again what was seen; runs until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            self.report()

    def report(self) -> None:
        seen = self.ledger.take()
        if seen is not None:
            self.supervisor.send(seen)
        if self.shares_port:
            counts = counts_of(self.doors, self.ledger.shadow_dropped)
            counts[figures.COUNTS] = self.predictor.observer.counts()
            self.supervisor.send({"event": "doors", "counts": counts})
        kept = self.supervisor.cache.take()
        if kept:
            self.supervisor.send({"event": "kept", "models": kept})

    async def metrics(self) -> Response:
        try:
            async with asyncio.timeout(_METRICS_SECONDS):
                told = await self.supervisor.ask("metrics")
        except TimeoutError:
            raise NotReady(f"loaderd did not tell its figures within {_METRICS_SECONDS:g} s.") from None
        of_door = exposition(*with_others(self.doors, self.ledger.shadow_dropped, told["doors"]))
        of_predictions = figures.exposition(self.predictor.observer.counts(), told["doors"])
        return Response((told["text"] + of_door + of_predictions).encode(), headers=[(b"content-type", CONTENT_TYPE)])


class Front:
    """One door: `begin` is what its listener calls.

    rooms: by the first part of the path. Those of the private door trust who comes in.
    """

    def __init__(self, gateway: Gateway, rooms: dict[str, Room], *, private: bool) -> None:
        self._gateway = gateway
        self._rooms = rooms
        self._is_private = private
        self._name = "private" if private else "public"
        self._counts = gateway.doors[self._name]
        self._observer = gateway.predictor.observer
        self._tasks: set[asyncio.Task[None]] = set()  # held: the event loop would forget them
        self._quick = Quick(
            gateway.predictor,
            None if private else gateway.access,
            finish=self._finish,
            fail=self._fail,
            take_long_way=self._start,
            notice=self._notice,
            blunder=self._blunder,
        )

    def begin(self, exchange: Exchange) -> None:
        self._counts.in_flight += 1
        exchange.on_over = self._over
        if self._observer.spans is not None:
            course = self._observer.begin(exchange, self._name, may_sample=True)
            if course is not None and course.decision is not None:
                self._start(exchange, course)
                return
        if not (exchange.is_whole and self._quick.takes(exchange)):
            self._start(exchange)

    def _over(self, status: int) -> None:
        """An exchange has its answer, or its client is gone (status 0)."""
        self._counts.in_flight -= 1
        if status:
            self._counts.by_class[status // 100] += 1

    def _watch(self, exchange: Exchange, course: Course) -> None:
        """Has the course told when the exchange is over."""

        def over(status: int) -> None:
            self._over(status)
            course.request_bytes, course.response_bytes = exchange.received_bytes, exchange.sent_bytes
            self._observer.over(course, status)

        exchange.on_over = over

    def _notice(self, exchange: Exchange, route: Route, message: wire.Message | None, error: str = "") -> None:
        """A prediction on the short way turned out to be slow. error: the code of what it failed with."""
        course = self._observer.begin(exchange, self._name, may_sample=False)
        if course is None:
            return
        course.led_to(route)
        course.error_code = error
        with suppress(NotAuthenticated):  # its token may have ended meanwhile
            course.user = self._caller_of(exchange.headers).user
        if message is not None:
            course.answered(message.body, int(message.head) if message.head.isdigit() else None)
        self._watch(exchange, course)

    def _start(self, exchange: Exchange, course: Course | None = None) -> None:
        self._hold(exchange, self._serve(exchange, course))

    def _hold(self, exchange: Exchange, serving: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(self._guarded(exchange, serving))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, exchange: Exchange, serving: Coroutine[Any, Any, None]) -> None:
        try:
            await serving
        except asyncio.CancelledError:
            exchange.abandon()
        except Exception as error:
            log.exception("%s %s failed", exchange.method, exchange.url[:200])
            self._blunder(exchange, error)

    def _blunder(self, exchange: Exchange, error: Exception) -> None:
        """Something failed that should not have; the log says what. Whoever waits is told so, or cut off."""
        if exchange.is_begun:
            exchange.abandon()
            return
        room = self._rooms.get(exchange.url[1:].partition(b"/")[0].decode("latin-1"), _NOWHERE)
        failure = room.error(_unexpected(error))
        exchange.respond(failure.body, failure.status, failure.headers)

    def _finish(self, exchange: Exchange, message: wire.Message) -> None:
        headers = JSON if not message.head else headers_of(message.head)
        if len(message.body) > SMALL_BYTES and encoding_for(exchange.headers.get(b"accept-encoding")):
            self._hold(exchange, _respond(exchange, Response(message.body, 200, headers)))
        else:
            exchange.respond(message.body, 200, headers)

    def _fail(self, exchange: Exchange, route: Route, error: LoaderdError) -> None:
        if isinstance(error, ModelProcessDied):
            self._gateway.predictor.note_lost(route, exchange.began, error)
        if self._observer.is_slow(exchange.began):
            self._notice(exchange, route, None, error.code)
        response = self._rooms[exchange.url[1:].partition(b"/")[0].decode()].error(error)
        exchange.respond(response.body, response.status, response.headers)

    async def _serve(self, exchange: Exchange, course: Course | None) -> None:
        """The long way: reads, answers, and says what went wrong."""
        if exchange.is_gone:
            exchange.abandon()
            return
        if course is None:
            course = self._observer.begin(exchange, self._name, may_sample=False)
        if course is not None:
            self._watch(exchange, course)
        path = _path_of(exchange.url)
        deadline = Deadline.after(self._gateway.predict_timeout_seconds)
        body = Body(exchange, self._gateway.budget, deadline)
        parts = path.strip("/").split("/")
        room = self._rooms.get(parts[0], _NOWHERE)
        request = Request(
            exchange.method,
            path,
            parts,
            exchange.headers,
            body,
            deadline,
            exchange.began,
            exchange.when_gone,
            NOBODY,
            exchange.is_traced,
            course,
        )
        try:
            try:
                answer = await self._answer(request, room)
            except LoaderdError as error:
                if course is not None:
                    course.error_code = error.code
                answer = room.error(error)
            finally:
                body.close()
            if isinstance(answer, Streamed):
                async with aclosing(answer.parts) as pieces:
                    await exchange.stream(pieces, answer.headers)
            else:
                await _respond(exchange, answer)
        except (Disconnected, asyncio.CancelledError):
            exchange.abandon()  # nobody is there to read an answer
        except Exception as error:
            log.exception("%s %s failed", request.method, path)
            if course is not None:
                course.error_code = LoaderdError.code
            self._blunder(exchange, error)

    async def _answer(self, request: Request, room: Room) -> Answer:
        match request.parts:
            case ["v2", "health", "live"]:
                request.require_method("GET")
                return json_response({"live": True})
            case ["v2", "health", "ready"]:
                request.require_method("GET")
                if not self._gateway.supervisor.has_routes:
                    raise NotReady("The gateway waits for its supervisor.")
                return json_response({"live": True, "ready": True})
        request.caller = self._caller_of(request.headers)
        if request.course is not None:
            request.course.user = request.caller.user
        if request.parts == ["metrics"] and not self._is_private:
            request.require_method("GET")
            return await self._gateway.metrics()
        return await room.handle(request, request.parts[1:])

    def _caller_of(self, headers: dict[bytes, bytes]) -> Caller:
        """Who asks; raises NotAuthenticated."""
        if self._is_private:
            return Caller(headers.get(b"x-modelhub-user", b"").decode("utf-8", "replace"), ALL_PERMISSIONS)
        return self._gateway.access.caller(headers.get(b"authorization"))


def _unexpected(error: Exception) -> LoaderdError:
    return LoaderdError(f"The gateway failed: {type(error).__name__}; its log has the traceback.")


async def _respond(exchange: Exchange, response: Response) -> None:
    """Answers, a large answer compressed where the client takes that."""
    body, headers = response.body, response.headers
    if len(body) > SMALL_BYTES:
        encoding = encoding_for(exchange.headers.get(b"accept-encoding"))
        if encoding is not None:
            smaller = await compressed(body, encoding)
            if exchange.is_gone:
                exchange.abandon()
                return
            if smaller is not None:
                body = smaller
                headers = (*headers, (b"content-encoding", encoding.encode()), (b"vary", b"accept-encoding"))
    exchange.respond(body, response.status, headers)


def headers_of(head: bytes) -> Headers:
    """The response headers of an answer with binary tensors. head: as in loaderd.wire, the length of its JSON part."""
    return (BINARY, (HEADER_LENGTH, head))


def error_headers(error: LoaderdError) -> Headers:
    """The headers of an error's answer, which is JSON."""
    if isinstance(error, NotAuthenticated):
        return (*JSON, (b"www-authenticate", b'Token realm="modelhub"'))
    if isinstance(error, (Overloaded, ModelRestarting)):
        return (*JSON, (b"retry-after", b"1"))
    if isinstance(error, BodyTooSlow):
        return (*JSON, (b"connection", b"close"))  # what still comes of the body is no next request
    return JSON


def plain_error(error: LoaderdError) -> Response:
    """The error as the Open Inference Protocol has it, with its code."""
    value = {"error": error.message, "code": error.code}
    return Response(orjson.dumps(value), error.http_status, error_headers(error))


class _Nowhere:
    async def handle(self, request: Request, rest: list[str]) -> Answer:
        raise NoSuchPath(f"There is nothing at {request.path}; the Open Inference Protocol begins at /v2.")

    def error(self, error: LoaderdError) -> Response:
        return plain_error(error)


_NOWHERE = _Nowhere()


def _path_of(url: bytes) -> str:
    """The decoded path of a request's target, which may be a whole URL."""
    text = url.decode("latin-1")
    if not text.startswith("/"):
        with suppress(ValueError):  # of what is no URL: then it is a path that leads nowhere
            text = urllib.parse.urlsplit(text).path
    path = text.partition("?")[0].partition("#")[0]
    return urllib.parse.unquote(path) if "%" in path else path
