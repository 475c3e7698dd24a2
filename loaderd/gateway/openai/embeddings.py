"""/v1/embeddings: texts in, vectors out, as numbers or as base64 of their float32."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from loaderd import wire
from loaderd.errors import InvalidInput, PredictionFailed
from loaderd.gateway.openai.models import EMBEDDING
from loaderd.gateway.openai.parameters import HARMLESS, model_named, taken
from loaderd.gateway.routes import Route

_KNOWN = ("model", "input", "encoding_format", "dimensions")
_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Wanted:
    """model: as it was named. dimensions: that the client counts on, if it said so."""

    model: str
    texts: list[str]
    is_base64: bool
    dimensions: int | None


def read(body: Any) -> Wanted:
    """Raises InvalidInput."""
    given = taken(body, _KNOWN, HARMLESS)
    encoding = given.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise InvalidInput('encoding_format must be "float" or "base64".', param="encoding_format")
    dimensions = given.get("dimensions")
    if dimensions is not None and (type(dimensions) is not int or dimensions < 1):
        raise InvalidInput("dimensions must be a whole number of at least 1.", param="dimensions")
    return Wanted(model_named(given), _texts(given.get("input")), encoding == "base64", dimensions)


def _texts(given: Any) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts):
        return texts
    if isinstance(texts, list) and texts and all(isinstance(part, int | list) for part in texts):
        raise InvalidInput(
            "input holds token numbers, which mean other words to each model; send text "
            "(in LangChain: check_embedding_ctx_length=False).",
            param="input",
        )
    raise InvalidInput("input must be a text or a list of at least one text.", param="input")


def request(texts: list[str], route: Route) -> bytes:
    """The Open Inference request for them."""
    inputs = (route.signature or {}).get("inputs") or [{"name": "text"}]
    given = {"name": inputs[0]["name"], "datatype": "BYTES", "shape": [len(texts)], "data": texts}
    return orjson.dumps({"inputs": [given], "outputs": [{"name": EMBEDDING, "parameters": {"binary_data": True}}]})


def answer(wanted: Wanted, message: wire.Message) -> bytes:
    """The response's body. Raises InvalidInput where the vectors are not as long as the client counts on."""
    vectors, tokens = _vectors(message)
    width = len(vectors) // len(wanted.texts)
    if wanted.dimensions not in (None, width):
        raise InvalidInput(
            f"{wanted.model} makes vectors of {width} numbers and was not trained to be cut to {wanted.dimensions}; "
            "leave dimensions out.",
            param="dimensions",
        )
    rows = _rows(vectors, width)
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(row).decode() if wanted.is_base64 else row.tolist(),
        }
        for index, row in enumerate(rows)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return orjson.dumps({"object": "list", "data": data, "model": wanted.model, "usage": usage})


def _vectors(message: wire.Message) -> tuple[memoryview[float], int]:
    """All numbers, row after row, and how many tokens were read for them."""
    told = orjson.loads(message.head or b"null")
    if not isinstance(told, dict):
        told = {"header_bytes": told}
    at = told.get("header_bytes")
    body = memoryview(message.body)
    outputs = orjson.loads(body[:at])["outputs"] if at is not None else []
    if [output.get("datatype") for output in outputs] != ["FP32"]:
        raise PredictionFailed("The model's vectors are not of float32, so that they cannot be told here.")
    return body[at:].cast("f"), int((told.get("usage") or {}).get("tokens", 0))


def _rows(vectors: memoryview[float], width: int) -> Iterator[memoryview[float]]:
    for start in range(0, len(vectors), width):
        yield vectors[start : start + width]
