"""The inference door as an ASGI application: Open Inference Protocol v2, and the private plain prediction.

On the TCP door every route needs a token but GET /v2/health/live and /v2/health/ready, which load balancers
ask and which tell nothing else. The private door (a unix socket in a folder of mode 0700) needs none.

live: this process runs. ready: the supervisor is connected and has told which models there are, whether
none or many, and whatever they are doing. A model is ready when that version is loaded: 200, else 503.
A prediction from a model that is registered but not loaded is 409 with what to do next; an unknown one is 404.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

import loaderd
from loaderd import wire
from loaderd.errors import InvalidInput, LoaderdError, NotAuthenticated, Overloaded
from loaderd.gateway.access import ALL_PERMISSIONS, Access, Caller
from loaderd.gateway.body import Body, BodyTooSlow, Budget, Disconnected
from loaderd.gateway.deadline import Deadline
from loaderd.gateway.links import Links
from loaderd.gateway.lookup import Lookup
from loaderd.gateway.repository import Repository
from loaderd.gateway.routes import Route
from loaderd.gateway.supervisor import Supervisor

log = logging.getLogger(__name__)

Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]

_JSON: Headers = [(b"content-type", b"application/json")]
_BINARY: Headers = [(b"content-type", b"application/octet-stream")]
_EXTENSIONS = ["binary_tensor_data", "model_repository"]
# Only a request that takes longer than this is watched for its client's leaving; watching costs a task.
_WATCH_AFTER_SECONDS = 0.1


class NoSuchPath(LoaderdError):
    code = "not_found"
    http_status = 404


class MethodNotAllowed(LoaderdError):
    code = "method_not_allowed"
    http_status = 405


class NotReady(LoaderdError):
    code = "not_ready"
    http_status = 503


@dataclass(frozen=True, slots=True)
class Response:
    body: bytes | bytearray
    status: int = 200
    headers: Headers = field(default_factory=lambda: _JSON)


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status)


@dataclass(slots=True)
class Request:
    """One request at the door. caller: None until `Gateway` knows who asks."""

    method: str
    path: str
    parts: list[str]
    headers: dict[bytes, bytes]
    body: Body
    deadline: Deadline
    caller: Caller | None = None

    def require_method(self, method: str) -> None:
        if self.method != method:
            raise MethodNotAllowed(f"{self.path} answers {method}, not {self.method}.")

    def require(self, permission: str) -> None:
        assert self.caller is not None
        self.caller.require(permission)

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


@dataclass(slots=True)
class Gateway:
    """Answers requests of both doors.

    predict_timeout_seconds: from a request's first byte until it is answered with 408 (its body has not come),
    429 (no memory for it) or 504 (no prediction).
    """

    access: Access
    links: Links
    supervisor: Supervisor
    predict_timeout_seconds: float
    budget: Budget = field(default_factory=Budget)
    lookup: Lookup = field(init=False)

    def __post_init__(self) -> None:
        self.lookup = Lookup(self.supervisor)

    async def public(self, scope: Mapping[str, Any], receive: Any, send: Send) -> None:
        """The TCP door's ASGI application."""
        await self._serve(scope, receive, send, private=False)

    async def private(self, scope: Mapping[str, Any], receive: Any, send: Send) -> None:
        """The unix socket's ASGI application."""
        await self._serve(scope, receive, send, private=True)

    async def _serve(self, scope: Mapping[str, Any], receive: Any, send: Send, *, private: bool) -> None:
        path = scope["path"]
        deadline = Deadline.after(self.predict_timeout_seconds)
        body = Body(receive, self.budget, deadline)
        request = Request(scope["method"], path, path.strip("/").split("/"), dict(scope["headers"]), body, deadline)
        internal = private and request.parts[0] == "internal"
        try:
            response = await self._answer(request, private=private)
        except LoaderdError as error:
            response = _error(error, internal=internal)
        except (Disconnected, asyncio.CancelledError):
            return  # nobody is there to read an answer
        except Exception as error:
            log.exception("%s %s failed", request.method, path)
            unexpected = LoaderdError(f"The gateway failed: {type(error).__name__}; its log has the traceback.")
            response = _error(unexpected, internal=internal)
        finally:
            body.close()
        length = (b"content-length", b"%d" % len(response.body))
        await send({"type": "http.response.start", "status": response.status, "headers": [*response.headers, length]})
        await send({"type": "http.response.body", "body": response.body})

    async def _answer(self, request: Request, *, private: bool) -> Response:
        match request.parts:
            case ["v2", "health", "live"]:
                request.require_method("GET")
                return _json({"live": True})
            case ["v2", "health", "ready"]:
                request.require_method("GET")
                if not self.supervisor.has_routes:
                    raise NotReady("The gateway waits for its supervisor.")
                return _json({"live": True, "ready": True})
        if private:
            request.caller = Caller(
                request.headers.get(b"x-modelhub-user", b"").decode("utf-8", "replace"), ALL_PERMISSIONS
            )
        else:
            request.caller = self.access.caller(request.headers.get(b"authorization"))
        match request.parts:
            case ["v2", "models", name, *rest]:
                return await self._model(request, name, rest)
            case ["v2", "repository", *rest]:
                return await self._repository(request, rest)
            case ["v2"]:
                request.require_method("GET")
                return _json({"name": "modelhub", "version": loaderd.__version__, "extensions": _EXTENSIONS})
            case ["internal", "models", model_id, "predict"] if private:
                request.require_method("POST")
                return await self._predict(request, lambda: self.lookup.exactly(model_id), wire.Kind.PREDICT, b"")
        raise NoSuchPath(f"There is nothing at {request.path}; the Open Inference Protocol begins at /v2.")

    async def _model(self, request: Request, name: str, rest: list[str]) -> Response:
        version = None
        if len(rest) >= 2 and rest[0] == "versions":
            version, rest = rest[1], rest[2:]
        match rest:
            case ["infer"]:
                request.require_method("POST")
                request.require("predict")
                head = {"name": name, "header_bytes": request.whole_number(b"inference-header-content-length")}
                return await self._predict(
                    request, lambda: self.lookup.find(name, version), wire.Kind.INFER, orjson.dumps(head)
                )
            case ["ready"]:
                request.require_method("GET")
                route = await self.lookup.find(name, version)
                if not route.is_ready:
                    reason = f": {route.reason}" if route.reason else ""
                    raise NotReady(f"{route.model_id} is {route.state}{reason}.", model_id=route.model_id)
                return _json({"name": name, "ready": True})
            case []:
                request.require_method("GET")
                return await self._metadata(name, version)
        raise NoSuchPath(f"There is nothing at {request.path}; a model answers ready, infer, and its own path.")

    async def _metadata(self, name: str, version: str | None) -> Response:
        route = await self.lookup.find(name, version)
        if route.signature is None:
            route.require_ready()
        signature = route.signature or {}
        return _json(
            {
                "name": name,
                "versions": [route.version] if version else self.supervisor.routes.versions_of(name),
                "platform": route.framework,
                "inputs": signature.get("inputs", []),
                "outputs": signature.get("outputs", []),
            }
        )

    async def _repository(self, request: Request, rest: list[str]) -> Response:
        repository = Repository(self.supervisor)
        match rest:
            case ["index"]:
                request.require_method("POST")
                return _json(await repository.index(await request.json()))
            case ["models", name, ("load" | "unload") as command]:
                request.require_method("POST")
                request.require(command)
                assert request.caller is not None
                return _json(await repository.command(command, name, await request.json(), request.caller.user))
        raise NoSuchPath(f"There is nothing at {request.path}; the repository answers index, load and unload.")

    async def _predict(
        self, request: Request, find: Callable[[], Awaitable[Route]], kind: wire.Kind, head: bytes
    ) -> Response:
        self.links.to((await find()).require_ready()).require_room()  # before its body is read
        pieces = await request.pieces()
        route = (await find()).require_ready()  # it may have changed meanwhile
        asking = asyncio.current_task()
        assert asking is not None
        watch = _Watch(request.body, asking)
        try:
            answer = await self.links.to(route).ask(kind, head, pieces, request.deadline)
        finally:
            watch.stop()
        if not answer.head:
            return Response(answer.body)
        return Response(answer.body, headers=[*_BINARY, (b"inference-header-content-length", answer.head)])


class _Watch:
    """Cancels a slow request's task when its client leaves, so that nobody computes for nobody."""

    def __init__(self, body: Body, asking: asyncio.Task[Any]) -> None:
        self._body = body
        self._asking = asking
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_SECONDS, self._start)

    def _start(self) -> None:
        self._task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        await self._body.wait_for_disconnect()
        self._asking.cancel()

    def stop(self) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()


def _error(error: LoaderdError, *, internal: bool) -> Response:
    headers = list(_JSON)
    if isinstance(error, NotAuthenticated):
        headers.append((b"www-authenticate", b'Token realm="modelhub"'))
    elif isinstance(error, Overloaded):
        headers.append((b"retry-after", b"1"))
    elif isinstance(error, BodyTooSlow):
        headers.append((b"connection", b"close"))  # what still comes of the body is no next request
    value = {"error": error.to_message()} if internal else {"error": error.message, "code": error.code}
    return Response(orjson.dumps(value, default=str), error.http_status, headers)
