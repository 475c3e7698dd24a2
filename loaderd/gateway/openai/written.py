"""Written text in the two forms of the OpenAI API: whole, and as the chunks of a stream."""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from loaderd.gateway.openai.wishes import Wish

Choice = dict[str, Any]
"""Of a piece or a final, as loaderd.generation.contract.Event has it."""


class Written(ABC):
    """One response. id, created and model are the same in all of its chunks."""

    _id_prefix: str
    _object: str
    _chunk_object: str

    def __init__(self, wish: Wish) -> None:
        self._wish = wish
        self._id = f"{self._id_prefix}-{uuid.uuid4().hex}"
        self._created = int(time.time())

    def whole(self, final: dict[str, Any]) -> dict[str, Any]:
        choices = [self._choice(choice) for choice in final["choices"]]
        return {**self._head(self._object), "choices": choices, "usage": final["usage"]}

    def chunks(self, piece: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """What is sent of a piece."""
        for choice in piece["choices"]:
            for told in self._deltas(choice):
                yield self._chunk([told])

    def end(self, final: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """What is sent when all is written."""
        if self._wish.includes_usage:
            yield {**self._head(self._chunk_object), "choices": [], "usage": final["usage"]}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        usage = {"usage": None} if self._wish.includes_usage else {}
        return {**self._head(self._chunk_object), "choices": choices, **usage}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._wish.model}

    @abstractmethod
    def _choice(self, choice: Choice) -> dict[str, Any]:
        """A whole one."""

    @abstractmethod
    def _deltas(self, choice: Choice) -> Iterator[dict[str, Any]]:
        """What is added to one."""


class WrittenCompletion(Written):
    _id_prefix = "cmpl"
    _object = _chunk_object = "text_completion"

    def _choice(self, choice: Choice) -> dict[str, Any]:
        return {
            "index": choice["index"],
            "text": choice["text"],
            "logprobs": _completion_logprobs(choice),
            "finish_reason": choice["finish_reason"],
        }

    def _deltas(self, choice: Choice) -> Iterator[dict[str, Any]]:
        yield self._choice(choice)


class WrittenMessage(Written):
    _id_prefix = "chatcmpl"
    _object = "chat.completion"
    _chunk_object = "chat.completion.chunk"

    def __init__(self, wish: Wish) -> None:
        super().__init__(wish)
        self._begun: set[int] = set()

    def _choice(self, choice: Choice) -> dict[str, Any]:
        return {
            "index": choice["index"],
            "message": {"role": "assistant", "content": choice["text"], "refusal": None},
            "logprobs": _chat_logprobs(choice),
            "finish_reason": choice["finish_reason"],
        }

    def _deltas(self, choice: Choice) -> Iterator[dict[str, Any]]:
        index, delta = choice["index"], {}
        if index not in self._begun:
            self._begun.add(index)
            delta["role"] = "assistant"
        if choice["text"] or delta:
            delta["content"] = choice["text"]
        if delta or choice.get("logprobs"):
            yield {"index": index, "delta": delta, "logprobs": _chat_logprobs(choice), "finish_reason": None}
        if choice["finish_reason"] is not None:
            yield {"index": index, "delta": {}, "logprobs": None, "finish_reason": choice["finish_reason"]}


def _completion_logprobs(choice: Choice) -> dict[str, Any] | None:
    tokens = choice.get("logprobs")
    if tokens is None:
        return None
    return {
        "tokens": [token["token"] for token in tokens],
        "token_logprobs": [token["logprob"] for token in tokens],
        "top_logprobs": [{top["token"]: top["logprob"] for top in token["top"]} for token in tokens],
        "text_offset": [token["offset"] for token in tokens],
    }


def _chat_logprobs(choice: Choice) -> dict[str, Any] | None:
    tokens = choice.get("logprobs")
    if tokens is None:
        return None
    told = ("token", "bytes", "logprob")
    return {
        "content": [
            {
                **{name: token[name] for name in told},
                "top_logprobs": [{name: top[name] for name in told} for top in token["top"]],
            }
            for token in tokens
        ],
        "refusal": None,
    }
