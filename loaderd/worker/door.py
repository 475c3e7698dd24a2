"""The model process's data socket: reads requests, has them computed, answers. Runs on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson

from loaderd import wire
from loaderd.errors import InvalidInput, LoaderdError, ModelNotLoaded, Overloaded, PredictionFailed
from loaderd.frameworks.base import TOKENS, LoadedModel
from loaderd.oip import request as oip_request
from loaderd.oip import response as oip_response
from loaderd.protocol import ModelSpec
from loaderd.worker import simple
from loaderd.worker.batching import Arrays, Job, Rank
from loaderd.worker.call import describe
from loaderd.worker.compute import ComputeThread
from loaderd.worker.counters import Counters
from loaderd.worker.interest import Interest
from loaderd.worker.preparing import PreparingThread

if TYPE_CHECKING:
    from loaderd.generation.contract import Event, Writing

log = logging.getLogger(__name__)

# How long a connection may stay open when all is answered: the rest of large requests still comes meanwhile.
LEAVE_SECONDS = 1.0

Rendered = tuple[bytes, oip_response.Chunks]
"""The head and the body of an answer."""


class Door:
    """Serves one loaded model. Everything here happens on the event loop's thread."""

    def __init__(self, spec: ModelSpec, model: LoadedModel, compute: ComputeThread) -> None:
        self._spec = spec
        self._signature = model.signature
        self._generation = model.generation
        if self._generation is not None:
            self._generation.bound(spec.max_batch_size, spec.max_queue)
        self._compute = compute
        loop = asyncio.get_running_loop()
        self._preparing = (
            PreparingThread(
                spec.model_id, model, compute, lambda job: loop.call_soon_threadsafe(self.finish, [job], 0, 0.0, 0)
            )
            if model.prepares
            else None
        )
        self._counters = Counters()
        self._interest = Interest()
        self._jobs: dict[wire.Connection, dict[int, Job | Writing]] = {}
        self._accepted: list[Job] = []  # of what is being read: they are queued together
        self._in_flight = 0
        self._left_behind = 0  # abandoned jobs that another thread still has
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
        return self._counters.to_message(self._in_flight, self._queued, self._compute.busy_seconds)

    @property
    def _queued(self) -> int:
        """Requests that wait for a call."""
        begun = 0 if self._generation is None else self._generation.begun
        queued = self._in_flight - self._compute.in_call - begun
        return queued if queued > 0 else 0

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
        connection = wire.Connection(self._on_message, self._on_lost, self._queue_accepted)
        self._jobs[connection] = {}
        self._deserted.clear()
        return connection

    def _on_lost(self, connection: wire.Connection) -> None:
        for job in self._jobs.pop(connection).values():
            self._abandon(job)
        if not self._jobs:
            self._deserted.set()

    def _abandon(self, job: Job | Writing) -> None:
        """Nobody waits any more: it is not computed if it can be helped, and not waited for."""
        if isinstance(job, Job):
            job.abandon()
            self._left_behind += 1
            self._compute.abandoned()
        else:
            assert self._generation is not None
            self._generation.cancel(job)
        self._left_flight()

    def _left_flight(self) -> None:
        self._in_flight -= 1
        if not self._in_flight:
            self._idle.set()

    # Requests

    def _on_message(self, connection: wire.Connection, message: wire.Message) -> None:
        if message.kind == wire.Kind.CANCEL:
            self._cancel(connection, message)
            return
        if message.kind == wire.Kind.PING:
            connection.send(message.request_id, wire.Kind.ANSWER, b"")
            return
        try:
            self._admit()
            work = self._writing(message) if message.kind == wire.Kind.GENERATE else self._job(message)
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
        work.origin = (connection, message.request_id)
        self._jobs[connection][message.request_id] = work
        queued = self._queued + (self._compute.busy_seconds > 0.0)
        self._in_flight += 1
        self._idle.clear()
        self._counters.accepted(self._in_flight, queued)
        if isinstance(work, Job):
            self._accepted.append(work)
        else:
            self._compute.wake()

    def _queue_accepted(self) -> None:
        """Hands over what came in one read: one wake-up of the other thread for all of it."""
        if self._accepted:
            accepted, self._accepted = self._accepted, []
            if self._preparing is not None:
                self._preparing.submit(accepted)
            elif not self._compute_here(accepted):
                self._compute.submit(accepted)

    def _compute_here(self, jobs: list[Job]) -> bool:
        """Has short calls made at once, and writes their answers; False: nothing was done."""
        for connection in self._jobs:
            connection.hold()
        try:
            return self._compute.compute_here(jobs, self.finish)
        finally:
            for connection in self._jobs:
                connection.release()

    def _cancel(self, connection: wire.Connection, message: wire.Message) -> None:
        work = self._jobs[connection].pop(message.request_id, None)
        if work is None:
            return  # the answer and the cancellation crossed
        self._abandon(work)
        if message.head == b"timeout":
            self._answered(work, "no answer in time")

    def _admit(self) -> None:
        """Raises when a request may not come in."""
        if self._draining:
            raise ModelNotLoaded(
                f"{self._spec.model_id} is being unloaded and takes no new predictions; load it again to use it.",
                model_id=self._spec.model_id,
            )
        left, limit = self._left_behind, self._spec.max_queue
        if self._in_flight + left >= limit and self._queued + left >= limit:
            abandoned = f" ({left} of them abandoned since)" if left else ""
            raise Overloaded(
                f"{self._spec.model_id} has {self._queued + left} requests waiting{abandoned}, which is its limit; try "
                "again in a moment.",
                model_id=self._spec.model_id,
                queued=self._queued + left,
            )

    def _job(self, message: wire.Message) -> Job:
        arrived_at = time.perf_counter()
        head = _read_head(message.head) if message.head else _NO_HEAD
        if message.kind == wire.Kind.INFER:
            asked = oip_request.parse(message.body, head.get("header_bytes"), self._signature)
            render = functools.partial(self._render_infer, asked, head["name"])
            job = Job(asked.inputs, asked.items, arrived_at, render)
            if asked.priority:
                job.rank = Rank.URGENT if asked.priority == 1 else Rank.BULK
            if asked.timeout_seconds is not None:
                job.deadline = arrived_at + asked.timeout_seconds
        elif message.kind == wire.Kind.PREDICT:
            inputs = simple.parse(message.body, self._signature)
            items = len(next(iter(inputs.values())))
            job = Job(inputs, items, arrived_at, functools.partial(self._render_simple, arrived_at))
        else:
            raise InvalidInput(f"A message of kind {message.kind} is no request.")
        if len(head) > 2:  # more than the name and the length
            job.is_traced = bool(head.get("trace"))
            job.wants_usage = bool(head.get("usage"))
            job.wants_others = bool(head.get("bulk"))
        elif head.get("trace") or head.get("bulk"):  # of a plain prediction
            job.is_traced = bool(head.get("trace"))
            job.wants_others = bool(head.get("bulk"))
        if job.wants_others:
            job.rank = Rank.BULK
        job.input_seconds = time.perf_counter() - arrived_at
        return job

    def _writing(self, message: wire.Message) -> Writing:
        if self._generation is None:
            raise InvalidInput(
                f"{self._spec.model_id} does not generate text; ask a model that does, or use its inference endpoint.",
                param="model",
            )
        request = orjson.loads(message.body)
        if not isinstance(request, dict):
            raise InvalidInput("The request must be a JSON object.")
        writing = self._generation.start(request)
        writing.is_traced = bool(message.head) and bool(_read_head(message.head).get("trace"))
        return writing

    # Answers

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

    def finish(self, jobs: Sequence[Job], batches: int, compute_seconds: float, batch_items: int) -> None:
        """Answers and counts jobs that the compute thread is done with. Each job comes here once."""
        if batches:
            self._counters.computed(batches, compute_seconds, batch_items)
        for job in jobs:
            if job.abandoned:
                self._left_behind -= 1
                continue
            try:
                self._finish_one(job)
            except Exception as error:  # of one job: the others get their answers
                self._cannot_answer(job, error)

    def _cannot_answer(self, work: Job | Writing, error: Exception) -> None:
        """Says so in place of an answer that failed half way."""
        log.error("%s: an answer could not be given", self._spec.model_id, exc_info=error)
        connection, request_id = work.origin
        if self._jobs.get(connection, {}).pop(request_id, None) is not None:
            self._left_flight()
        failed = PredictionFailed(
            f"{self._spec.model_id}'s answer cannot be given: {describe(error)}.", model_id=self._spec.model_id
        )
        with contextlib.suppress(Exception):  # the connection is at fault
            self._send_error(connection, request_id, failed)

    def _finish_one(self, job: Job) -> None:
        connection, request_id = job.origin
        del self._jobs[connection][request_id]
        self._left_flight()
        began = time.perf_counter()
        try:
            if job.error is not None:
                raise job.error
            assert job.outputs is not None
            head, chunks = self._rendered(job, job.outputs)
        except LoaderdError as error:
            if not isinstance(error, InvalidInput):
                self._answered(job, error.message)
            self._send_error(connection, request_id, error, _traced_head(job) if job.is_traced else b"")
        else:
            self._answered(job, output_seconds=time.perf_counter() - began)
            if job.is_traced or job.wants_usage or job.wants_others:
                head = _telling_head(job, head, self._interest)
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

    def take_events(self, events: Sequence[Event], steps: int, step_seconds: float) -> None:
        """Passes on what the generator's newest step came to. steps, step_seconds: since the last time."""
        self._counters.computed(steps, step_seconds)
        if steps:  # who reads a text as it is written waits for each of them
            self._interest.answered(step_seconds / steps, time.perf_counter())
        for event in events:
            writing = event.writing
            if writing.cancelled or writing.origin is None:
                continue
            connection, request_id = writing.origin
            if self._jobs.get(connection, {}).get(request_id) is not writing:
                continue
            try:
                self._take_event(event, connection, request_id)
            except Exception as error:  # of one text: the others are written on
                if event.piece is not None and self._generation is not None:
                    self._generation.cancel(writing)
                self._cannot_answer(writing, error)

    def _take_event(self, event: Event, connection: wire.Connection, request_id: int) -> None:
        writing = event.writing
        if event.piece is not None:
            connection.send(request_id, wire.Kind.PART, b"", orjson.dumps(event.piece))
            return
        del self._jobs[connection][request_id]
        self._left_flight()
        if event.error is None:
            self._answered(writing)
            head = _telling_head_of_text(writing) if writing.is_traced and writing.started_at else b""
            connection.send(request_id, wire.Kind.ANSWER, head, orjson.dumps(event.final))
            return
        error = self._compute.failure_of(event.error)
        if not isinstance(error, InvalidInput):
            self._answered(writing, error.message)
        self._send_error(connection, request_id, error)

    def _answered(self, work: Job | Writing, error: str = "", output_seconds: float = 0.0) -> None:
        now = time.perf_counter()
        queued_until = now if work.started_at is None else work.started_at
        if isinstance(work, Job):
            if work.rank is not Rank.BULK and not error:
                self._interest.answered(now - work.arrived_at, now)
            input_seconds, infer_seconds = work.input_seconds, work.timings.compute_seconds
        else:
            input_seconds, infer_seconds = 0.0, work.compute_seconds
        self._counters.answered(
            work.items,
            now - work.arrived_at,
            queued_until - work.arrived_at,
            error,
            input_seconds,
            infer_seconds,
            output_seconds,
        )

    def _send_error(self, connection: wire.Connection, request_id: int, error: LoaderdError, head: bytes = b"") -> None:
        connection.send(request_id, wire.Kind.ERROR, head, _written(error.to_message()))


def _written(message: dict[str, Any]) -> bytes:
    """As JSON, whatever is in it: half a surrogate pair, as file names have it, becomes a question mark."""
    try:
        return orjson.dumps(message, default=str)
    except TypeError:
        return json.dumps(message, default=str, ensure_ascii=False).encode(errors="replace")


_NO_HEAD: dict[str, Any] = {}


@functools.lru_cache(maxsize=512)
def _read_head(head: bytes) -> dict[str, Any]:
    """A head as what it says: clients ask with few different ones."""
    told: dict[str, Any] = orjson.loads(head)
    return told


def _trace_of(job: Job) -> dict[str, Any]:
    assert job.started_at is not None
    return {
        "queue_seconds": job.started_at - job.arrived_at,
        "compute_seconds": job.timings.compute_seconds,
        "items": job.items,
        "batch_items": job.timings.batch_items,
    }


def _traced_head(job: Job) -> bytes:
    """The head of a traced request's error (loaderd.wire); empty when the model did not get to it."""
    return b"" if job.started_at is None else orjson.dumps({"trace": _trace_of(job)})


def _telling_head_of_text(writing: Writing) -> bytes:
    assert writing.started_at is not None
    trace = {
        "queue_seconds": writing.started_at - writing.arrived_at,
        "compute_seconds": writing.compute_seconds,
        "items": writing.items,
        "batch_items": None,
    }
    return orjson.dumps({"header_bytes": None, "trace": trace})


def _telling_head(job: Job, head: bytes, interest: Interest) -> bytes:
    """The head of an answer that tells more than its length (loaderd.wire)."""
    told: dict[str, Any] = {"header_bytes": int(head) if head else None}
    if job.is_traced:
        told["trace"] = _trace_of(job)
    if job.wants_usage:
        assert job.outputs is not None
        tokens = job.outputs.get(TOKENS)
        told["usage"] = {"tokens": None if tokens is None else int(tokens.sum())}
    if job.wants_others and (latency := interest.latency_seconds(time.perf_counter())) is not None:
        told["others_seconds"] = latency
    return orjson.dumps(told)
