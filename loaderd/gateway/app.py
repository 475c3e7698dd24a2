"""The inference door as an ASGI application: Open Inference Protocol v2, and the private plain prediction.

On the TCP door every route needs a token but GET /v2/health/live and /v2/health/ready, which load balancers
ask and which tell nothing else. The private door (a unix socket in a folder of mode 0700) needs none.

A prediction for a model that is being restarted, or that is loaded when it is asked for, waits for it (`waiting`).
live: this process runs. ready: the supervisor is connected and has told which models there are, whether
none or many, and whatever they are doing. A model is ready when that version is loaded: 200, else 503.
A prediction from a model that is registered but not loaded is 409 with what to do next; an unknown one is 404.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

import loaderd
from loaderd import wire
from loaderd.errors import (
    InvalidInput,
    LoaderdError,
    ModelProcessDied,
    ModelRestarting,
    NotAuthenticated,
    Overloaded,
)
from loaderd.gateway.access import ALL_PERMISSIONS, Access, Caller
from loaderd.gateway.body import Body, BodyTooSlow, Budget, Disconnected
from loaderd.gateway.deadline import Deadline
from loaderd.gateway.links import Links, NotComputed, require_answer
from loaderd.gateway.lookup import Lookup
from loaderd.gateway.metrics import CONTENT_TYPE, DoorCounts, exposition
from loaderd.gateway.repository import Repository
from loaderd.gateway.routes import Route, Split, Target
from loaderd.gateway.shadow import Shadow
from loaderd.gateway.supervisor import Supervisor
from loaderd.gateway.tally import Ledger
from loaderd.gateway.waiting import Waiting

log = logging.getLogger(__name__)

Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]

_JSON: Headers = [(b"content-type", b"application/json")]
_BINARY: Headers = [(b"content-type", b"application/octet-stream")]
_EXTENSIONS = ["binary_tensor_data", "model_repository"]
# Only a request that takes longer than this is watched for its client's leaving; watching costs a task.
_WATCH_AFTER_SECONDS = 0.1
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


@dataclass(frozen=True, slots=True)
class Response:
    body: bytes | bytearray
    status: int = 200
    headers: Headers = field(default_factory=lambda: _JSON)


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status)


Copied = tuple[Split, wire.Kind, bytes, Sequence[bytes], wire.Message]
"""The arguments of `Shadow.copy`."""


@dataclass(slots=True)
class Request:
    """One request at the door. caller: None until `Gateway` knows who asks. copied: what the candidate gets too when
    the answer is on its way. began: by time.perf_counter."""

    method: str
    path: str
    parts: list[str]
    headers: dict[bytes, bytes]
    body: Body
    deadline: Deadline
    caller: Caller | None = None
    copied: Copied | None = None
    began: float = field(default_factory=time.perf_counter)

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
    ledger: Ledger = field(default_factory=Ledger)
    lookup: Lookup = field(init=False)
    waiting: Waiting = field(init=False)
    shadow: Shadow = field(init=False)
    doors: dict[str, DoorCounts] = field(default_factory=lambda: {"public": DoorCounts(), "private": DoorCounts()})

    def __post_init__(self) -> None:
        self.links.on_silent = lambda route: self.supervisor.send(
            {"event": "silent", "model_id": route.model_id, "socket": route.socket}
        )
        self.lookup = Lookup(self.supervisor)
        self.waiting = Waiting(self.supervisor, self.lookup)
        self.shadow = Shadow(self.links, self.ledger, self.predict_timeout_seconds)

    async def report_every(self, seconds: float) -> None:
        """Tells the supervisor again and again what was seen; runs until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            self.report()

    def report(self) -> None:
        seen = self.ledger.take()
        if seen is not None:
            self.supervisor.send(seen)

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
        door = self.doors["private" if private else "public"]
        door.in_flight += 1
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
            door.in_flight -= 1
            body.close()
        door.by_class[response.status // 100] += 1
        length = (b"content-length", b"%d" % len(response.body))
        await send({"type": "http.response.start", "status": response.status, "headers": [*response.headers, length]})
        await send({"type": "http.response.body", "body": response.body})
        if request.copied is not None:
            self.shadow.copy(*request.copied)

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
            case ["internal", "models", name, "predict"] if private:
                request.require_method("POST")
                return await self._predict(request, name, None, wire.Kind.PREDICT, b"")
            case ["metrics"] if not private:
                request.require_method("GET")
                return await self._metrics()
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
                return await self._predict(request, name, version, wire.Kind.INFER, orjson.dumps(head))
            case ["ready"]:
                request.require_method("GET")
                route = (await self.lookup.find(name, version)).route
                if not route.is_ready:
                    reason = f": {route.reason}" if route.reason else ""
                    raise NotReady(f"{route.model_id} is {route.state}{reason}.", model_id=route.model_id)
                return _json({"name": name, "ready": True})
            case []:
                request.require_method("GET")
                return await self._metadata(name, version)
        raise NoSuchPath(f"There is nothing at {request.path}; a model answers ready, infer, and its own path.")

    async def _metadata(self, name: str, version: str | None) -> Response:
        route = (await self.lookup.find(name, version)).route
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

    async def _metrics(self) -> Response:
        try:
            async with asyncio.timeout(_METRICS_SECONDS):
                of_models = str(await self.supervisor.ask("metrics"))
        except TimeoutError:
            raise NotReady(f"loaderd did not tell its figures within {_METRICS_SECONDS:g} s.") from None
        of_door = exposition(self.doors, self.ledger.shadow_dropped)
        return Response((of_models + of_door).encode(), headers=[(b"content-type", CONTENT_TYPE)])

    async def _predict(
        self, request: Request, name: str, version: str | None, kind: wire.Kind, head: bytes
    ) -> Response:
        route = (await self.lookup.find(name, version)).route
        if route.is_ready:  # before its body is read
            self.links.to(route).require_room()
        else:
            self.waiting.require_hope(route)
        pieces = await request.pieces()
        asking = asyncio.current_task()
        assert asking is not None
        watch = _Watch(request.body, asking)
        try:
            answer = await self._computed(request, name, version, kind, head, pieces)
        finally:
            watch.stop()
        if not answer.head:
            return Response(answer.body)
        return Response(answer.body, headers=[*_BINARY, (b"inference-header-content-length", answer.head)])

    async def _computed(
        self,
        request: Request,
        name: str,
        version: str | None,
        kind: wire.Kind,
        head: bytes,
        pieces: Sequence[bytes],
    ) -> wire.Message:
        """The answer of the version that the name means by now. A request that a process refused because it was being
        unloaded, or that found none to connect to, was not computed: it is routed again, once."""
        is_traced = self.ledger.picks(self.supervisor.sampling_rate)
        was_refused = False
        while True:
            target = await self.lookup.find(name, version)
            if not target.route.is_ready:
                assert request.caller is not None
                held_bytes = request.body.reserved_bytes
                target = await self.waiting.until_ready(name, version, request.caller.user, held_bytes)
                request.deadline = Deadline.after(self.predict_timeout_seconds)
            route, role = _chosen(target)
            try:
                if target.split is None and not is_traced:
                    return require_answer(await self.links.to(route).ask(kind, head, pieces, request.deadline))
                return await self._observed(request, route, role, target.split, is_traced, kind, head, pieces)
            except NotComputed as refused:
                if was_refused:
                    self._note_lost(request, route, refused.error)
                    raise refused.error from None
                was_refused = True
                await self.waiting.until_told(route)
            except ModelProcessDied as lost:
                self._note_lost(request, route, lost)
                raise

    def _note_lost(self, request: Request, route: Route, error: LoaderdError) -> None:
        """Counts an error that the model's process cannot count: it never had the request, or died with it."""
        if isinstance(error, ModelProcessDied):
            self.ledger.lost(route.model_id, time.perf_counter() - request.began, error.message)

    async def _observed(
        self,
        request: Request,
        route: Route,
        role: str,
        split: Split | None,
        is_traced: bool,
        kind: wire.Kind,
        head: bytes,
        pieces: Sequence[bytes],
    ) -> wire.Message:
        """The answer, counted for its version of a split lineage, and traced."""
        began = time.perf_counter()
        asked_head = orjson.dumps({**orjson.loads(head or b"{}"), "trace": True}) if is_traced else head
        answer: wire.Message | None = None
        failure: LoaderdError | None = None
        timings: dict[str, Any] = {}
        try:
            message = await self.links.to(route).ask(kind, asked_head, pieces, request.deadline)
            if is_traced:
                timings = _take_timings(message)
            answer = require_answer(message)
        except LoaderdError as error:
            failure = error
        now, status = time.perf_counter(), 200 if failure is None else failure.http_status
        if split is not None:
            tally = self.ledger.of(split)
            (tally.candidate if role == "candidate" else tally.live).add(now - began, status)
        if is_traced:
            assert request.caller is not None
            self.ledger.trace(route, role, request.caller.user, status, now - request.began, timings)
        if failure is not None:
            raise failure
        assert answer is not None
        if split is not None and split.shadow and role == "live":
            request.copied = split, kind, head, pieces, answer
        return answer


def _chosen(target: Target) -> tuple[Route, str]:
    """The version that answers this request, and as what: "live", "candidate" or "direct"."""
    split = target.split
    if split is not None and split.percent > 0 and random.random() * 100 < split.percent:  # noqa: S311 - a share, no secret
        return split.candidate, "candidate"
    return target.route, "live" if target.by_lineage else "direct"


def _take_timings(message: wire.Message) -> dict[str, Any]:
    """Where a traced answer's time went; its head becomes that of an untraced one."""
    if not message.head.startswith(b"{"):
        return {}
    told = orjson.loads(message.head)
    header_bytes = told.get("header_bytes")
    message.head = b"" if header_bytes is None else b"%d" % header_bytes
    timings: dict[str, Any] = told.get("trace") or {}
    return timings


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
    elif isinstance(error, (Overloaded, ModelRestarting)):
        headers.append((b"retry-after", b"1"))
    elif isinstance(error, BodyTooSlow):
        headers.append((b"connection", b"close"))  # what still comes of the body is no next request
    value = {"error": error.to_message()} if internal else {"error": error.message, "code": error.code}
    return Response(orjson.dumps(value, default=str), error.http_status, headers)
