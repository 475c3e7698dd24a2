"""Spans of predictions for an OpenTelemetry collector. Imported only when an exporter is configured.

A request's spans are made when it is over, out of what is known by then; only whether they are to be made is decided
when it begins. A thread sends them. What it cannot send in time is dropped and counted, and nobody waits for it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

import loaderd
from loaderd.gateway.observing.context import TraceContext
from loaderd.gateway.observing.course import Course

log = logging.getLogger(__name__)

SERVICE_NAME = "modelhub-gateway"  # where OTEL_SERVICE_NAME says nothing else
MAX_WAITING = 2048  # spans, where OTEL_BSP_MAX_QUEUE_SIZE says nothing else
CLOSE_SECONDS = 1.5
_SPANS_OF_A_REQUEST = 3
_TELL_SECONDS = 60.0


class Spans:
    """The way of spans out of the gateway. exported, failed, dropped: counts of spans: taken by the collector, not
    taken by it, and never sent because too many waited.

    Raises ValueError when a variable has a value that OpenTelemetry does not take.
    """

    def __init__(self) -> None:
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # _Counted tells of failures, and once
        self.dropped = 0
        self._begun = 0
        self._max_waiting = int(os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE") or MAX_WAITING)
        self._exporter = _Counted(OTLPSpanExporter())
        self._ids = _KnownTraceIds()
        provider = TracerProvider(resource=_resource(), shutdown_on_exit=False, id_generator=self._ids)
        self._sampler: Sampler = provider.sampler  # the one that the environment asks for
        self._decided = provider.sampler = _Decided()
        self._processor = BatchSpanProcessor(self._exporter)
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("loaderd.gateway", loaderd.__version__)

    @property
    def exported(self) -> int:
        return self._exporter.exported

    @property
    def failed(self) -> int:
        return self._exporter.failed

    def decide(self, course: Course) -> SamplingResult | None:
        """What the sampler says of a request; None: no spans. Gives a request without a parent its trace id."""
        parent = _context_of(course.parent)
        trace_id = course.trace_id or self._ids.random_trace_id()
        result = self._sampler.should_sample(parent, trace_id, "predict", SpanKind.SERVER)
        if result.decision is not Decision.RECORD_AND_SAMPLE:
            return None
        course.trace_id = trace_id
        return result

    def export(self, course: Course, status: int, now: float) -> None:
        """Queues the spans of a request that was decided on and is over. now: by time.perf_counter."""
        if self._begun - self.exported - self.failed + _SPANS_OF_A_REQUEST > self._max_waiting:
            self.dropped += 1 + 2 * (course.asked_at is not None and course.queue_seconds is not None)
            return
        wall_ns = time.time_ns()

        def unix_ns(at: float) -> int:
            return wall_ns - round((now - at) * 1e9)

        self._ids.next_trace_id, self._decided.result = course.trace_id, course.decision
        span = self._start("predict", _context_of(course.parent), SpanKind.SERVER, unix_ns(course.began))
        span.set_attributes(_attributes(course, status))
        if status >= 500 or (course.error_code and status == 200):  # the latter of a stream that had begun
            span.set_status(Status(StatusCode.ERROR, course.error_code))
        if course.first_part_at is not None:
            span.add_event("first part", timestamp=unix_ns(course.first_part_at))
        if course.asked_at is not None and course.queue_seconds is not None:
            self._tell_stages(course, span, unix_ns(course.asked_at))
        span.end(wall_ns)

    def _tell_stages(self, course: Course, span: Span, asked_ns: int) -> None:
        """The stages in the model's process. It tells how long they took; they began when the request was sent."""
        self._decided.result = SamplingResult(
            Decision.RECORD_AND_SAMPLE, trace_state=span.get_span_context().trace_state
        )
        parent = trace.set_span_in_context(span, Context())
        computed_ns = asked_ns + round((course.queue_seconds or 0.0) * 1e9)
        self._start("queue", parent, SpanKind.INTERNAL, asked_ns).end(computed_ns)
        compute = self._start("compute", parent, SpanKind.INTERNAL, computed_ns)
        if course.batch_items is not None:
            compute.set_attribute("modelhub.batch_items", course.batch_items)
        if course.items is not None:
            compute.set_attribute("modelhub.items", course.items)
        compute.end(computed_ns + round((course.compute_seconds or 0.0) * 1e9))

    def _start(self, name: str, parent: Context, kind: SpanKind, start_ns: int) -> Span:
        self._begun += 1
        return self._tracer.start_span(name, context=parent, kind=kind, start_time=start_ns)

    def close(self) -> None:
        """Sends what waits, for CLOSE_SECONDS at most."""
        closing = threading.Thread(target=self._processor.shutdown, name="closing-spans", daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)


def _attributes(course: Course, status: int) -> dict[str, Any]:
    if course.door == "grpc":
        protocol: dict[str, Any] = {
            "rpc.system": "grpc",
            "rpc.service": "inference.GRPCInferenceService",
            "rpc.method": course.method,
            "rpc.grpc.status_code": course.rpc_status,
        }
    else:
        protocol = {
            "http.request.method": course.method,
            "http.route": course.route,
            "url.path": course.path,
            "http.response.status_code": status or None,
            "http.request.body.size": course.request_bytes,
            "http.response.body.size": course.response_bytes,
        }
    attributes = {
        **protocol,
        "error.type": course.error_code,
        "enduser.id": course.user,
        "modelhub.door": course.door,
        "modelhub.model.id": course.model_id,
        "modelhub.model.version": course.version,
        "modelhub.model.lineage": course.lineage,
        "modelhub.route": course.role,
        "modelhub.items": course.items,
        "modelhub.batch_items": course.batch_items,
        "modelhub.cache": course.kept,
        "modelhub.request_id": course.request_id,
    }
    return {name: value for name, value in attributes.items() if value not in (None, "")}


def _context_of(parent: TraceContext | None) -> Context:
    if parent is None:
        return Context()
    flags = TraceFlags((TraceFlags.SAMPLED if parent.is_sampled else 0) | (0x02 if parent.is_random else 0))
    state = TraceState.from_header([parent.state]) if parent.state else None
    span = NonRecordingSpan(SpanContext(parent.trace_id, parent.span_id, True, flags, state))
    return trace.set_span_in_context(span, Context())


def _resource() -> Resource:
    """As OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say; both are read by the detector."""
    ours = Resource({"service.name": SERVICE_NAME, "service.version": loaderd.__version__, "process.pid": os.getpid()})
    told = OTELResourceDetector().detect()
    return Resource.create().merge(ours).merge(told)


class _KnownTraceIds(RandomIdGenerator):
    """Gives the trace ids that the sampler was asked about."""

    next_trace_id = 0

    def generate_trace_id(self) -> int:
        return self.next_trace_id

    def random_trace_id(self) -> int:
        return super().generate_trace_id()


class _Decided(Sampler):
    """Repeats what was decided when the request began."""

    result: SamplingResult

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Any = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        return self.result

    def get_description(self) -> str:
        return "as decided when the request began"


class _Counted(SpanExporter):
    """An exporter whose failures are counted, and told once a minute at most. Used by one thread."""

    def __init__(self, exporter: OTLPSpanExporter) -> None:
        self.exported = 0
        self.failed = 0
        self._exporter = exporter
        self._told_at = float("-inf")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception:
            result = SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS:
            self.exported += len(spans)
        else:
            self.failed += len(spans)
            self._tell()
        return result

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told_at >= _TELL_SECONDS:
            self._told_at = now
            log.warning(
                "the collector that OTEL_EXPORTER_OTLP_* names took no spans; %d are lost so far. Predictions go on.",
                self.failed,
            )

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exporter.force_flush(timeout_millis)
