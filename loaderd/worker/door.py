"""The model process's data socket: reads requests, has them computed, answers. Runs on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from typing import Any

import orjson

from loaderd import wire
from loaderd.errors import InvalidInput, LoaderdError, ModelNotLoaded, Overloaded, PredictionFailed
from loaderd.frameworks.base import Signature
from loaderd.oip import request as oip_request
from loaderd.oip import response as oip_response
from loaderd.protocol import ModelSpec
from loaderd.worker import simple
from loaderd.worker.batching import Arrays, Job, Timings
from loaderd.worker.call import describe
from loaderd.worker.compute import ComputeThread
from loaderd.worker.counters import Counters

log = logging.getLogger(__name__)

# How long a connection may stay open when all is answered: the rest of large requests still comes meanwhile.
LEAVE_SECONDS = 1.0

Rendered = tuple[bytes, oip_response.Chunks]
"""The head and the body of an answer."""


class Door:
    """Serves one loaded model. Everything here happens on the event loop's thread."""

    def __init__(self, spec: ModelSpec, signature: Signature, compute: ComputeThread) -> None:
        self._spec = spec
        self._signature = signature
        self._compute = compute
        self._counters = Counters()
        self._jobs: dict[wire.Connection, dict[int, Job]] = {}
        self._in_flight = 0
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._deserted = asyncio.Event()  # set while there is no connection
        self._deserted.set()
        self._server: asyncio.Server | None = None

    async def open(self, path: str) -> None:
        """Listens at `path`; connections succeed once this returns."""
        listener = wire.private_listener(path)
        # Held: uvloop does not, and a server that nobody holds stops listening at the next full garbage collection.
        self._server = await asyncio.get_running_loop().create_unix_server(
            self._connection, sock=listener, backlog=wire.LISTEN_BACKLOG
        )

    def counters(self) -> dict[str, Any]:
        return self._counters.to_message(self._in_flight, self._compute.queued, self._compute.busy_seconds)

    async def drain(self) -> None:
        """Refuses new requests; returns when all accepted ones are answered and their bytes are sent.

        What was on its way when the route was taken from the gateway is refused when it has come, so that the gateway
        asks elsewhere: it closes its connection when nothing is left, which is waited for, within a bound.
        """
        self._draining = True
        await self._idle.wait()
        await self.flush()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._deserted.wait()

    async def flush(self) -> None:
        """Returns when the bytes of all answers given so far are sent."""
        for connection in list(self._jobs):
            await connection.flush()

    def _connection(self) -> wire.Connection:
        connection = wire.Connection(self._on_message, self._on_lost)
        self._jobs[connection] = {}
        self._deserted.clear()
        return connection

    def _on_lost(self, connection: wire.Connection) -> None:
        for job in self._jobs.pop(connection).values():
            self._abandon(job)
        if not self._jobs:
            self._deserted.set()

    def _abandon(self, job: Job) -> None:
        """Nobody waits any more: it is not computed if it can be helped, and not waited for."""
        job.abandoned = True
        self._left_flight()

    def _left_flight(self) -> None:
        self._in_flight -= 1
        if not self._in_flight:
            self._idle.set()

    def _on_message(self, connection: wire.Connection, message: wire.Message) -> None:
        if message.kind == wire.Kind.CANCEL:
            self._cancel(connection, message)
            return
        if message.kind == wire.Kind.PING:
            connection.send(message.request_id, wire.Kind.ANSWER, b"")
            return
        try:
            queued = self._admit()
            job = self._job(message)
        except LoaderdError as error:
            self._send_error(connection, message.request_id, error)
            return
        except MemoryError:
            refused: LoaderdError = Overloaded(
                f"{self._spec.model_id} has no memory left to read the request; send fewer items at once.",
                model_id=self._spec.model_id,
            )
            self._send_error(connection, message.request_id, refused)
            return
        except Exception as error:  # a mistake in the codec must not end the connection of all others
            log.exception("a request could not be read")
            refused = InvalidInput(f"The request cannot be read: {describe(error)}.")
            self._send_error(connection, message.request_id, refused)
            return
        job.origin = (connection, message.request_id)
        self._jobs[connection][message.request_id] = job
        self._in_flight += 1
        self._idle.clear()
        self._counters.accepted(self._in_flight, queued)
        self._compute.submit(job)

    def _cancel(self, connection: wire.Connection, message: wire.Message) -> None:
        job = self._jobs[connection].pop(message.request_id, None)
        if job is None:
            return  # the answer and the cancellation crossed
        self._abandon(job)
        if message.head == b"timeout":
            self._answered(job, "no answer in time")

    def _admit(self) -> int:
        """How many requests will wait with this one; raises when it may not come in."""
        if self._draining:
            raise ModelNotLoaded(
                f"{self._spec.model_id} is being unloaded and takes no new predictions; load it again to use it.",
                model_id=self._spec.model_id,
            )
        queued = self._compute.queued
        if queued >= self._spec.max_queue:
            raise Overloaded(
                f"{self._spec.model_id} has {queued} requests waiting, which is its limit; try again in a moment.",
                model_id=self._spec.model_id,
                queued=queued,
            )
        return queued + (self._compute.busy_seconds > 0.0)

    def _job(self, message: wire.Message) -> Job:
        arrived_at = time.perf_counter()
        if message.kind == wire.Kind.INFER:
            head = orjson.loads(message.head)
            asked = oip_request.parse(message.body, head.get("header_bytes"), self._signature)
            render = functools.partial(self._render_infer, asked, head["name"])
            return Job(asked.inputs, asked.items, arrived_at, render, timings=_timings(head))
        if message.kind == wire.Kind.PREDICT:
            inputs = simple.parse(message.body, self._signature)
            items = len(next(iter(inputs.values())))
            timings = _timings(orjson.loads(message.head)) if message.head else None
            return Job(inputs, items, arrived_at, functools.partial(self._render_simple, arrived_at), timings=timings)
        raise InvalidInput(f"A message of kind {message.kind} is no request.")

    def _render_infer(self, asked: oip_request.InferRequest, name: str, outputs: Arrays) -> Rendered:
        header_bytes, chunks = oip_response.build(asked, outputs, self._signature, name, self._spec.version)
        return (b"" if header_bytes is None else b"%d" % header_bytes), chunks

    def _render_simple(self, arrived_at: float, outputs: Arrays) -> Rendered:
        answer = {
            "model_id": self._spec.model_id,
            "version": self._spec.version,
            "predictions": simple.predictions(outputs, self._signature),
            "latency_ms": round((time.perf_counter() - arrived_at) * 1000, 3),
        }
        return b"", [orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)]

    def finish(self, jobs: list[Job], batches: int, compute_seconds: float) -> None:
        """Answers and counts jobs that the compute thread is done with."""
        self._counters.computed(batches, compute_seconds)
        for job in jobs:
            if not job.abandoned:
                self._finish_one(job)

    def _finish_one(self, job: Job) -> None:
        connection, request_id = job.origin
        del self._jobs[connection][request_id]
        self._left_flight()
        try:
            if job.error is not None:
                raise job.error
            assert job.outputs is not None
            head, chunks = self._rendered(job, job.outputs)
        except LoaderdError as error:
            if not isinstance(error, InvalidInput):
                self._answered(job, error.message)
            self._send_error(connection, request_id, error, b"" if job.timings is None else _traced_head(job))
        else:
            self._answered(job)
            if job.timings is not None:
                head = _traced_head(job, header_bytes=int(head) if head else None)
            connection.send(request_id, wire.Kind.ANSWER, head, *chunks)

    def _rendered(self, job: Job, outputs: Arrays) -> Rendered:
        """The answer's head and body; raises LoaderdError when it cannot be written."""
        model_id = self._spec.model_id
        try:
            rendered: Rendered = job.render(outputs)
        except LoaderdError:
            raise
        except Exception as error:
            log.exception("an answer could not be written")
            raise PredictionFailed(f"{model_id}'s answer cannot be written: {describe(error)}.") from error
        if sum(map(len, rendered[1])) > wire.MAX_BODY_BYTES:
            raise PredictionFailed(f"{model_id}'s answer passes {wire.MAX_BODY_BYTES} bytes; send fewer items at once.")
        return rendered

    def _answered(self, job: Job, error: str = "") -> None:
        now = time.perf_counter()
        queued_until = now if job.started_at is None else job.started_at
        self._counters.answered(job.items, now - job.arrived_at, queued_until - job.arrived_at, error)

    def _send_error(self, connection: wire.Connection, request_id: int, error: LoaderdError, head: bytes = b"") -> None:
        connection.send(request_id, wire.Kind.ERROR, head, orjson.dumps(error.to_message(), default=str))


def _timings(head: dict[str, Any]) -> Timings | None:
    return Timings() if head.get("trace") else None


def _traced_head(job: Job, **fields: Any) -> bytes:
    """The head of a traced request's answer (loaderd.wire)."""
    assert job.timings is not None
    assert job.started_at is not None
    trace = {
        "queue_seconds": job.started_at - job.arrived_at,
        "compute_seconds": job.timings.compute_seconds,
        "items": job.items,
        "batch_items": job.timings.batch_items,
    }
    return orjson.dumps({**fields, "trace": trace})
