"""The short way of a plain prediction: parsed, known, sent on and answered without a task of its own.

What is not plain (a model that is not ready, a split, a trace, an answer to be kept, an unknown token, a large or
compressed body, a full queue) is left alone, and takes the long way, which also words all errors. Kept answers
are given here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter

import orjson

from loaderd import wire
from loaderd.errors import LoaderdError, ModelNotLoaded, NotAuthenticated, from_message
from loaderd.gateway.access import Access
from loaderd.gateway.body import SMALL_BODY_BYTES
from loaderd.gateway.deadline import Deadline
from loaderd.gateway.http.exchange import Exchange
from loaderd.gateway.links import Call, NotComputed
from loaderd.gateway.predicting import Predictor
from loaderd.gateway.routes import Route

_LENGTH = b"inference-header-content-length"
NOT_PLAIN = frozenset({b"content-encoding", b"x-modelhub-priority"})
"""Headers that ask for more than the plain way knows."""

Finish = Callable[[Exchange, wire.Message], None]
Fail = Callable[[Exchange, Route, LoaderdError], None]
TakeLongWay = Callable[[Exchange], None]
Blunder = Callable[[Exchange, Exception], None]
Notice = Callable[[Exchange, Route, wire.Message | None], None]


class _Way:
    """What a URL leads to as long as the table of routes holds. head: for a body that is all JSON."""

    __slots__ = ("head", "kind", "name", "route")

    def __init__(self, route: Route, kind: wire.Kind, name: str) -> None:
        self.route = route
        self.kind = kind
        self.name = name
        self.head = b"" if kind == wire.Kind.PREDICT else self.head_of(None)

    def head_of(self, header_bytes: int | None) -> bytes:
        return orjson.dumps({"name": self.name, "header_bytes": header_bytes})


class Quick:
    """The short way of one door.

    access: None for the private door, which asks for no token. finish: writes an answer. fail: writes an error that the
    model or its process gave. take_long_way: called when the process turned out not to take the request. notice: called
    with a slow prediction before it is answered, and without a message before its client leaves. blunder: called when
    one of these failed.
    """

    def __init__(
        self,
        predictor: Predictor,
        access: Access | None,
        finish: Finish,
        fail: Fail,
        take_long_way: TakeLongWay,
        notice: Notice,
        blunder: Blunder,
    ) -> None:
        self._predictor = predictor
        self._supervisor = predictor.supervisor
        self._access = access
        self._finish = finish
        self._fail = fail
        self._take_long_way = take_long_way
        self._notice = notice
        self.blunder = blunder
        self._ways: dict[bytes, _Way] = {}
        self._ways_of: object = None  # the table that they were worked out of

    def takes(self, exchange: Exchange) -> bool:
        """Sends the request on if it is a plain one; False: nothing was done."""
        routes = self._predictor.supervisor.routes
        if routes is not self._ways_of:
            self._ways, self._ways_of = {}, routes
        way = self._ways.get(exchange.url) or self._find(exchange.url)
        headers = exchange.headers
        if (
            way is None
            or exchange.method != "POST"
            or exchange.unread_bytes > SMALL_BODY_BYTES
            or not NOT_PLAIN.isdisjoint(headers)
        ):
            return False
        if self._access is not None:
            try:
                if "predict" not in self._access.caller(headers.get(b"authorization")).permissions:
                    return False
            except NotAuthenticated:
                return False
        head = way.head
        length = headers.get(_LENGTH)
        if length is not None and way.kind == wire.Kind.INFER:
            if not length.isdigit() or len(length) > 18:
                return False
            head = way.head_of(int(length))
        if way.route.keeps_answers:
            return self._gives_kept(exchange, way, None if length is None else int(length))
        if exchange.is_traced is None:
            exchange.is_traced = self._predictor.picks()
        if exchange.is_traced:
            return False
        pieces = exchange.peek_whole()
        call = _QuickCall(Deadline.after(self._predictor.timeout_seconds), self, exchange, way.route)
        if not self._predictor.links.to(way.route).try_start(call, way.kind, head, pieces):
            return False
        exchange.on_gone = call.left
        return True

    def _gives_kept(self, exchange: Exchange, way: _Way, header_bytes: int | None) -> bool:
        """Answers with what is kept; False: it is to be computed, which the long way does."""
        cache = self._predictor.supervisor.cache
        head = {} if way.kind == wire.Kind.PREDICT else {"name": way.name, "header_bytes": header_bytes}
        key = cache.key(way.route, way.kind, head, exchange.peek_whole())
        kept = None if key is None else cache.get(key, asyncio.get_running_loop().time())
        if kept is None:
            return False
        self._finish(exchange, kept)
        return True

    def _find(self, url: bytes) -> _Way | None:
        """The way that a URL leads, when it is one that leads to a prediction of a model that is ready."""
        match url.split(b"/"):
            case [b"", b"v2", b"models", name, b"infer"] if self._is_plain(name):
                return self._learn(url, wire.Kind.INFER, name.decode(), None)
            case [b"", b"v2", b"models", name, b"versions", version, b"infer"] if self._is_plain(name, version):
                return self._learn(url, wire.Kind.INFER, name.decode(), version.decode())
            case [b"", b"internal", b"models", name, b"predict"] if self._access is None and self._is_plain(name):
                return self._learn(url, wire.Kind.PREDICT, name.decode(), None)
        return None

    @staticmethod
    def _is_plain(*parts: bytes) -> bool:
        return all(part.isascii() and part and not (b"%" in part or b"?" in part or b"#" in part) for part in parts)

    def _learn(self, url: bytes, kind: wire.Kind, name: str, version: str | None) -> _Way | None:
        target = self._predictor.supervisor.routes.target(name, version)
        if target is None or target.split is not None or not target.route.is_ready:
            return None
        way = self._ways[url] = _Way(target.route, kind, name)
        return way

    def answered(self, call: _QuickCall, message: wire.Message) -> None:
        if message.kind != wire.Kind.ERROR:
            if perf_counter() - call.exchange.began >= self._supervisor.slow_request_seconds:
                self._notice(call.exchange, call.route, message)
            self._finish(call.exchange, message)
            return
        error = from_message(orjson.loads(message.body))
        if isinstance(error, ModelNotLoaded):  # it was draining already
            self._go_round(call.exchange)
        else:
            self._fail(call.exchange, call.route, error)

    def left(self, call: _QuickCall) -> None:
        if perf_counter() - call.exchange.began >= self._supervisor.slow_request_seconds:
            self._notice(call.exchange, call.route, None)

    def failed(self, call: _QuickCall, error: Exception) -> None:
        if isinstance(error, NotComputed):
            self._go_round(call.exchange)
            return
        assert isinstance(error, LoaderdError)
        self._fail(call.exchange, call.route, error)

    def _go_round(self, exchange: Exchange) -> None:
        exchange.on_gone = None  # the call is over
        self._take_long_way(exchange)


class _QuickCall(Call):
    __slots__ = ("exchange", "quick", "route")

    def __init__(self, deadline: Deadline, quick: Quick, exchange: Exchange, route: Route) -> None:
        super().__init__(deadline)
        self.quick = quick
        self.exchange = exchange
        self.route = route

    def left(self) -> None:
        """The client has gone."""
        self.drop()
        self.quick.left(self)

    def answered(self, message: wire.Message) -> None:
        self.quick.answered(self, message)

    def failed(self, error: Exception) -> None:
        self.quick.failed(self, error)

    def broke(self, error: Exception) -> None:
        self.quick.blunder(self.exchange, error)
