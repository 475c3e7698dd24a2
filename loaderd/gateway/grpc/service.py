"""Who asks, what it may cost, and what comes of it: the calls of inference.proto as gRPC's server wants them.

Calls with one request are registered as streams of requests, which look the same on the wire: so the caller's token is
looked at before the message is read, as the HTTP door does, and the message is read within a limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, cast

import grpc
from grpc import aio

from loaderd import wire
from loaderd.errors import InvalidInput, LoaderdError, NotAuthenticated
from loaderd.gateway.access import Access, Caller
from loaderd.gateway.app import NOBODY
from loaderd.gateway.body import BodyTooSlow, Budget
from loaderd.gateway.deadline import Deadline
from loaderd.gateway.grpc import transcoding
from loaderd.gateway.grpc.calls import Call, Calls
from loaderd.gateway.grpc.memory import Memory
from loaderd.gateway.grpc.messages import HEALTH, SERVICE, message_class, parsed
from loaderd.gateway.grpc.statuses import abort, code_of
from loaderd.gateway.grpc.streams import BULK_METADATA, Streams
from loaderd.gateway.metrics import DoorCounts
from loaderd.gateway.observing.course import Course, cleaned
from loaderd.gateway.oip import NotOffered
from loaderd.gateway.predicting import Ask, Predictor

log = logging.getLogger(__name__)

Work = Callable[[Any, Any], Awaitable[Any]]
"""Called with the call's requests and its context; returns the answer, or None where it has written its own."""

_WITHOUT_TOKEN = {"ServerLive", "ServerReady", "Check"}
_WHY_NOT = {
    "SharedMemory": "shared memory is not offered: the models' processes take tensors as messages only; send raw "
    "contents",
    "TraceSetting": "traces are set by SAMPLING_RATE, see docs/configuration.md",
    "LogSettings": "logs are set by PERFORMANCE_LOG_LEVEL, see docs/configuration.md",
}


class Service:
    """counts: of the requests, where the door's metrics are made of them."""

    def __init__(self, predictor: Predictor, access: Access, budget: Budget, counts: DoorCounts) -> None:
        self.streams = Streams(self)
        self.memory = Memory(budget)
        self.predictor = predictor
        self._access = access
        self._counts = counts
        self._calls = Calls(predictor)

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        return [
            grpc.method_handlers_generic_handler(
                service.full_name, {method.name: self._handler(method) for method in service.methods}
            )
            for service in (SERVICE, HEALTH)
        ]

    def _handler(self, method: Any) -> Any:
        name = method.name
        if name == "ModelStreamInfer":
            return grpc.stream_stream_rpc_method_handler(_ending(name, self._model_stream_infer))
        if name == "ModelInfer":
            return grpc.stream_unary_rpc_method_handler(_ending(name, self._model_infer))
        call = getattr(self._calls, re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower(), None)
        work = self._answering(method, call) if call else self._refusing(name)
        return grpc.stream_unary_rpc_method_handler(_ending(name, work))

    def _answering(self, method: Any, call: Call) -> Work:
        request_class = message_class(method.input_type.full_name)

        async def answer(_: object, context: Any) -> bytes:
            with self.counted():
                caller = NOBODY if method.name in _WITHOUT_TOKEN else self.caller(context)
                message = await self._message(context, self.deadline())
                answered = await call(parsed(request_class, message), caller)
                return cast(bytes, answered.SerializeToString())

        return answer

    def _refusing(self, name: str) -> Work:
        (reason,) = (reason for word, reason in _WHY_NOT.items() if word in name)

        async def refuse(_: object, context: Any) -> bytes:
            self.caller(context)
            raise NotOffered(f"{name}: {reason}.")

        return refuse

    async def _model_infer(self, _: object, context: Any) -> bytes:
        course = self.begin("ModelInfer", context, time.perf_counter())
        with self.counted(course):
            caller = self.caller(context)
            caller.require("predict")
            deadline = self.deadline()
            message = await self._message(context, deadline)
            async with self.memory.holding(message, deadline) as held_bytes:
                asked = transcoding.read(message)
                is_bulk = BULK_METADATA in context.invocation_metadata()
                ask = self.ask(asked, caller, deadline, course, held_bytes, is_bulk=is_bulk)
                course.request_bytes = len(message)
                answer = await self.predictor.answer(ask)
            written = b"".join(transcoding.write(answer))
            course.response_bytes = len(written)
            return written

    async def _model_stream_infer(self, requests: AsyncIterator[bytes], context: Any) -> None:
        self.caller(context).require("predict")
        await self.streams.serve(requests, context)

    def ask(
        self,
        asked: transcoding.Asked,
        caller: Caller,
        deadline: Deadline,
        course: Course,
        held_bytes: int,
        *,
        is_bulk: bool,
    ) -> Ask:
        course.user = caller.user
        course.request_id = course.request_id or cleaned(asked.request_id)
        return Ask(
            asked.name,
            asked.version,
            wire.Kind.INFER,
            {**asked.head, "bulk": True} if is_bulk else asked.head,
            cast("list[bytes]", asked.pieces),  # a view of bytes is as good
            caller,
            deadline,
            course.began,
            held_bytes,
            course=course,
        )

    def begin(self, method: str, context: Any, began: float) -> Course:
        """What is told of a prediction when it is over."""
        return self.predictor.observer.begin_call(method, context.invocation_metadata(), began)

    def caller(self, context: Any) -> Caller:
        """Whom the call's metadata names; raises NotAuthenticated."""
        for key, value in context.invocation_metadata():
            if key == "authorization":
                return self._access.caller(value if isinstance(value, bytes) else value.encode())
        raise NotAuthenticated("A token is needed: send the metadata authorization: Bearer <token>.")

    def deadline(self) -> Deadline:
        """Ours. At the client's own gRPC cancels the call, which counts as the client's leaving, not as a failure of
        the model."""
        return Deadline.after(self.predictor.timeout_seconds)

    async def _message(self, context: Any, deadline: Deadline) -> bytes:
        try:
            async with asyncio.timeout_at(deadline.at):
                message = await context.read()
        except TimeoutError:
            raise BodyTooSlow(
                f"The call's request was not complete within {deadline.seconds:g} s; send fewer items at once or raise "
                "PREDICT_TIMEOUT_SECONDS.",
                timeout_seconds=deadline.seconds,
            ) from None
        if message is aio.EOF:
            raise InvalidInput("The call ended before its request came.")
        return cast(bytes, message)

    @contextlib.contextmanager
    def counted(self, course: Course | None = None) -> Iterator[None]:
        """Counts a request by what comes of it; one whose client leaves has no status. course: of a prediction."""
        self._counts.in_flight += 1
        status = 0
        try:
            yield
            status = 200
        except LoaderdError as error:
            status = error.http_status
            if course is not None:
                course.error_code, course.rpc_status = error.code, code_of(error).value[0]
            raise
        except Exception:
            status = 500
            if course is not None:
                course.error_code, course.rpc_status = LoaderdError.code, grpc.StatusCode.INTERNAL.value[0]
            raise
        else:
            if course is not None:
                course.rpc_status = grpc.StatusCode.OK.value[0]
        finally:
            self._counts.in_flight -= 1
            if status:
                self._counts.by_class[status // 100] += 1
            if course is not None:
                self.predictor.observer.over(course, status)


def _ending(name: str, work: Work) -> Work:
    """The call, which an error ends with its status and sentence."""

    async def call(requests: Any, context: Any) -> Any:
        try:
            return await work(requests, context)
        except LoaderdError as error:
            await abort(context, error)
        except aio.BaseError:
            raise  # the call is over already
        except Exception as error:
            log.exception("%s failed", name)
            await abort(
                context, LoaderdError(f"The gateway failed: {type(error).__name__}; its log has the traceback.")
            )

    return call
