"""ModelStreamInfer: many requests over one call, each answered when it is done.

Who correlates answers by id gets them in any order. Requests without an id are answered in the order that they came in
among themselves: their client has nothing else to go by.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Any

from grpc import aio

from loaderd import wire
from loaderd.errors import LoaderdError, NotAuthenticated, ShuttingDown
from loaderd.gateway.grpc import generating, transcoding
from loaderd.gateway.grpc.messages import message_class
from loaderd.gateway.observing.course import Course

if TYPE_CHECKING:
    from loaderd.gateway.grpc.service import Service

log = logging.getLogger(__name__)

MAX_IN_FLIGHT = 64  # of one stream; then it is not read any further
BULK_METADATA = ("x-modelhub-priority", "bulk")  # others may go first
STATUS_METADATA = ("triton_grpc_error", "true")  # a client that wants errors to end its stream, with their status

Pieces = list[bytes | memoryview]
"""A serialised message."""

ModelStreamInferResponse = message_class("ModelStreamInferResponse")
_ANSWER = ModelStreamInferResponse.DESCRIPTOR.fields_by_name["infer_response"].number


class Streams:
    """The open streams of a door."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._reading: set[asyncio.Task[None]] = set()
        self._is_stopping = False

    async def serve(self, requests: AsyncIterator[bytes], context: Any) -> None:
        """Returns when the client sends no more and all is answered. Raises LoaderdError for what ends the stream."""
        stream = _Stream(self._service, context)
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(stream.read(requests, tasks))
                self._reading.add(reading)
                reading.add_done_callback(self._reading.discard)
                if self._is_stopping:
                    reading.cancel()
        except BaseExceptionGroup as failures:
            raise _first(failures) from None
        if self._is_stopping:
            raise ShuttingDown("The inference door is shutting down; open the stream again in a moment.")

    def stop(self) -> None:
        """Reads no more requests: each stream ends when what it has is answered."""
        self._is_stopping = True
        for reading in list(self._reading):
            reading.cancel()


def _first(failures: BaseExceptionGroup) -> BaseException:
    """What ended the stream; of several the first, which the others follow from."""
    error = failures.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


class _Stream:
    def __init__(self, service: Service, context: Any) -> None:
        self._service = service
        self._context = context
        metadata = context.invocation_metadata()
        self._ends_with_error = STATUS_METADATA in metadata
        self._is_bulk = BULK_METADATA in metadata
        self._room = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._writing = asyncio.Lock()  # gRPC takes one message at a time
        self._newest_unnamed = asyncio.Event()  # set when the newest request without an id has its answer
        self._newest_unnamed.set()

    async def read(self, requests: AsyncIterator[bytes], tasks: asyncio.TaskGroup) -> None:
        async for message in requests:
            await self._room.acquire()
            try:
                asked: transcoding.Asked | LoaderdError = transcoding.read(message)
            except LoaderdError as error:
                asked = error
            before, done = None, None
            if isinstance(asked, LoaderdError) or not asked.request_id:
                before, done = self._newest_unnamed, asyncio.Event()
                self._newest_unnamed = done
            tasks.create_task(self._serve(asked, message, before, done))

    async def _serve(
        self,
        asked: transcoding.Asked | LoaderdError,
        message: bytes,
        before: asyncio.Event | None,
        done: asyncio.Event | None,
    ) -> None:
        """before: set when those are answered that go before it. done: to be set when this one is."""
        try:
            async with contextlib.aclosing(self._answers(asked, message)) as answers:
                async for pieces in answers:
                    if before is not None:
                        await before.wait()
                    async with self._writing:
                        await self._context.write(b"".join(pieces))
        finally:
            self._room.release()
            if done is not None:
                done.set()

    async def _answers(self, asked: transcoding.Asked | LoaderdError, message: bytes) -> AsyncGenerator[Pieces, None]:
        """The ModelStreamInferResponses, which also tell errors. Raises those that end the stream."""
        course = self._service.begin("ModelStreamInfer", self._context, time.perf_counter())
        course.request_bytes, course.response_bytes = len(message), 0
        try:
            with self._service.counted(course):
                if isinstance(asked, LoaderdError):
                    raise asked
                async for pieces in self._responses(asked, message, course):
                    course.response_bytes += sum(map(len, pieces))
                    yield transcoding.embedded(_ANSWER, pieces)
        except NotAuthenticated:
            raise
        except LoaderdError as error:
            if self._ends_with_error:
                raise
            yield [_told(error, asked)]
        except aio.BaseError:
            raise
        except Exception as error:
            log.exception("a request of a stream failed")
            failure = LoaderdError(f"The gateway failed: {type(error).__name__}; its log has the traceback.")
            yield [_told(failure, asked)]

    async def _responses(
        self, asked: transcoding.Asked, message: bytes, course: Course
    ) -> AsyncGenerator[Pieces, None]:
        """The ModelInferResponses: one, or as many as there are pieces of generated text. Raises LoaderdError."""
        service = self._service
        caller = service.caller(self._context)  # its token may have been revoked meanwhile
        deadline = service.deadline()
        async with service.memory.holding(message, deadline) as held_bytes:
            ask = service.ask(asked, caller, deadline, course, held_bytes, is_bulk=self._is_bulk)
            if asked.parameters.get(generating.STREAM_PARAMETER) is not True:
                answer = await service.predictor.answer(ask)
                yield transcoding.write(answer, {transcoding.FINAL_PARAMETER: True})
                return
            ask.kind, ask.head, ask.pieces = wire.Kind.GENERATE, {}, [generating.body(asked)]
            async with contextlib.aclosing(service.predictor.stream(ask)) as messages:
                async for told in messages:
                    version = (await service.predictor.lookup.find(asked.name, asked.version)).route.version
                    for pieces in generating.responses(asked, version, told):
                        yield pieces


def _told(error: LoaderdError, asked: transcoding.Asked | LoaderdError) -> bytes:
    response = ModelStreamInferResponse(error_message=error.message)
    if not isinstance(asked, LoaderdError):
        response.infer_response.id = asked.request_id
        response.infer_response.model_name = asked.name
    response.infer_response.parameters[transcoding.FINAL_PARAMETER].bool_param = True
    told: bytes = response.SerializeToString()
    return told
