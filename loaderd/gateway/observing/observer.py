"""What is told of single predictions: a line when one is slow, spans where an exporter is configured."""

from __future__ import annotations

import asyncio
import functools
import importlib
import logging
import os
import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from loaderd.gateway.observing import context
from loaderd.gateway.observing.configured import exports_spans
from loaderd.gateway.observing.course import LEFT, Course, cleaned
from loaderd.gateway.observing.slow import SlowLog

if TYPE_CHECKING:
    from loaderd.gateway.http.exchange import Exchange
    from loaderd.gateway.observing.spans import Spans
    from loaderd.gateway.supervisor import Supervisor

log = logging.getLogger(__name__)

_ROUTES = (
    (re.compile(r"/v2/models/[^/]+/infer"), "/v2/models/{model}/infer"),
    (re.compile(r"/v2/models/[^/]+/versions/[^/]+/infer"), "/v2/models/{model}/versions/{version}/infer"),
    (re.compile(r"/internal/models/[^/]+/predict"), "/internal/models/{model}/predict"),
    (re.compile(r"/v1/(?:embeddings|completions|chat/completions)"), ""),
)
RPC_PATH = "/inference.GRPCInferenceService/"


class Observer:
    """Of all doors. Runs on the event loop. spans: None as long as none are exported."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.spans: Spans | None = None
        self.slow = SlowLog(lambda seconds, call: asyncio.get_running_loop().call_later(seconds, call))
        self._supervisor = supervisor

    async def open(self) -> None:
        """Begins to export spans if the environment asks for it. The libraries are imported in a thread meanwhile."""
        if not exports_spans(os.environ):
            return
        try:
            await asyncio.to_thread(importlib.import_module, "loaderd.gateway.observing.spans")
            from loaderd.gateway.observing.spans import Spans

            self.spans = Spans()
        except Exception:  # of a value that it does not take, perhaps: predictions are answered all the same
            log.exception("no spans are exported")

    def close(self) -> None:
        """Sends what is still to be sent, within a bound that the supervisor's patience allows."""
        if self.spans is not None:
            self.spans.close()

    # The beginning of a request

    def begin(self, exchange: Exchange, door: str, *, may_sample: bool) -> Course | None:
        """The course of a prediction over HTTP; None of any other request. may_sample: nobody asked the sampler yet."""
        if exchange.method != "POST":
            return None
        place = _place_of(exchange.url.partition(b"?")[0])
        if place is None:
            return None
        course = Course(door, exchange.method, *place, exchange.began)
        headers = exchange.headers
        self._place(course, context.of_headers(headers), may_sample=may_sample)
        request_id = headers.get(b"x-request-id")
        if request_id is not None:
            course.request_id = cleaned(request_id.decode("latin-1"))
        return course

    def begin_call(self, method: str, metadata: Iterable[tuple[str, str | bytes]], began: float) -> Course:
        """The course of a prediction over gRPC."""
        course = Course("grpc", method, RPC_PATH + method, RPC_PATH + method, began)
        told: dict[str, list[str]] = {}
        for key, value in metadata:
            if isinstance(value, str) and key in _METADATA:
                told.setdefault(key, []).append(value)
        parents = told.get(context.TRACEPARENT, [])
        parent = context.parse(parents[0], ",".join(told.get(context.TRACESTATE, ()))) if len(parents) == 1 else None
        self._place(course, parent, may_sample=True)
        if "x-request-id" in told:
            course.request_id = cleaned(told["x-request-id"][0])
        return course

    def _place(self, course: Course, parent: context.TraceContext | None, *, may_sample: bool) -> None:
        course.parent = parent
        if parent is not None:
            course.trace_id = parent.trace_id
        if may_sample and self.spans is not None:
            course.decision = self.spans.decide(course)

    def counts(self) -> dict[str, int]:
        """For `figures.exposition`."""
        counts = {"slow_requests": self.slow.count}
        if self.spans is not None:
            spans = self.spans
            counts |= {"spans_exported": spans.exported, "spans_failed": spans.failed, "spans_dropped": spans.dropped}
        return counts

    # The end

    def tells_of(self, course: Course) -> bool:
        """Whether the course will be told, so that what is in the answer is worth looking at."""
        return course.decision is not None or self.is_slow(course.began)

    def is_slow(self, began: float) -> bool:
        return time.perf_counter() - began >= self._supervisor.slow_request_seconds

    def over(self, course: Course, status: int) -> None:
        """The request has its answer, or its client is gone (status 0). Never raises."""
        try:
            now = time.perf_counter()
            if not status and not course.error_code:
                course.error_code = LEFT
            if now - course.began >= self._supervisor.slow_request_seconds:
                self.slow.write(course, status, now - course.began, time.time())
            if course.decision is not None and status != 401 and self.spans is not None:
                self.spans.export(course, status, now)
        except Exception:
            log.exception("a request could not be told of")


_METADATA = {context.TRACEPARENT, context.TRACESTATE, "x-request-id"}


@functools.lru_cache(maxsize=1024)
def _place_of(url: bytes) -> tuple[str, str] | None:
    """The path, and with names in place of what the client chose; None when no prediction is asked for there."""
    path = url.decode("latin-1")
    for pattern, route in _ROUTES:
        if pattern.fullmatch(path):
            return cleaned(path), route or path
    return None
