"""The room of the OpenAI API: `/v1`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import orjson

from loaderd import wire
from loaderd.errors import LoaderdError
from loaderd.gateway.app import Answer, NoSuchPath, Request, Response, Streamed, json_response
from loaderd.gateway.openai import embeddings, errors, models, sse, wishes
from loaderd.gateway.openai.wishes import Wish
from loaderd.gateway.openai.written import Written, WrittenCompletion, WrittenMessage
from loaderd.gateway.predicting import Ask, Predictor


class OpenAI:
    """Answers /v1/models, /v1/embeddings, /v1/completions and /v1/chat/completions."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def error(self, error: LoaderdError) -> Response:
        return errors.response(error)

    async def handle(self, request: Request, rest: list[str]) -> Answer:
        match rest:
            case ["models"]:
                request.require_method("GET")
                return json_response(models.listed(self._predictor))
            case ["models", name]:
                request.require_method("GET")
                return json_response(await models.described(self._predictor, name))
            case ["embeddings"]:
                return await self._embeddings(request)
            case ["completions"]:
                return await self._text(request, wishes.completion, WrittenCompletion)
            case ["chat", "completions"]:
                return await self._text(request, wishes.chat, WrittenMessage)
        raise NoSuchPath(
            f"There is nothing at {request.path}; of the OpenAI API there are "
            "/v1/models, /v1/embeddings, /v1/completions and /v1/chat/completions."
        )

    async def _embeddings(self, request: Request) -> Response:
        wanted = embeddings.read(await _body(request))
        route = await models.require_output(self._predictor, wanted.model, models.EMBEDDING)
        head = {"name": wanted.model, "header_bytes": None, "usage": True}
        ask = _ask(request, wanted.model, wire.Kind.INFER, head, embeddings.request(wanted.texts, route))
        request.leave_with_client()
        return Response(embeddings.answer(wanted, await self._predictor.answer(ask)))

    async def _text(
        self, request: Request, read: Callable[[Any], Wish], form: Callable[[Wish], Written]
    ) -> Response | Streamed:
        wish = read(await _body(request))
        await models.require_output(self._predictor, wish.model, models.TEXT)
        ask = _ask(request, wish.model, wire.Kind.GENERATE, {}, orjson.dumps(wish.asked.to_message()))
        request.leave_with_client()
        try:
            if not wish.asked.stream:
                answer = await self._predictor.answer(ask)
                return json_response(form(wish).whole(orjson.loads(answer.body)))
            messages = self._predictor.stream(ask)
            first = await anext(messages)  # what fails before there is anything to tell fails with its status
        except LoaderdError as error:
            raise wish.worded(error) from error
        return Streamed(_events(wish, form(wish), first, messages), sse.HEADERS)


async def _events(
    wish: Wish, written: Written, message: wire.Message, messages: AsyncGenerator[wire.Message, None]
) -> AsyncGenerator[bytes, None]:
    """The server-sent events for a stream's messages, of which `message` is the first; closes it."""
    async with aclosing(messages):
        try:
            while message.kind == wire.Kind.PART:
                yield b"".join(map(sse.event, written.chunks(orjson.loads(message.body))))
                message = await anext(messages)
        except LoaderdError as error:
            yield sse.event(errors.described(wish.worded(error)))
            return
        yield b"".join([*map(sse.event, written.end(orjson.loads(message.body))), sse.DONE])


async def _body(request: Request) -> Any:
    request.require_method("POST")
    request.require("predict")
    return await request.json()


def _ask(request: Request, name: str, kind: wire.Kind, head: dict[str, Any], body: bytes) -> Ask:
    return Ask(
        name,
        None,
        kind,
        head,
        [body],
        request.caller,
        request.deadline,
        request.began,
        request.body.reserved_bytes,
        course=request.course,
    )
