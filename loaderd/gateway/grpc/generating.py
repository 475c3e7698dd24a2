"""Generated text over a stream, piece by piece: what Triton calls a decoupled model.

A request of a stream with the parameter `stream` set gets an answer for each piece that is written, and a last one,
which says so. The other parameters are those of the OpenAI API that say how to write.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import orjson

from loaderd import wire
from loaderd.errors import InvalidInput
from loaderd.gateway.grpc import transcoding
from loaderd.generation.asked import Asked

STREAM_PARAMETER = "stream"
TEXT_INPUT, TEXT_OUTPUT = "text", "generated_text"

_WISHES = ("max_tokens", "temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "stop")


def body(asked: transcoding.Asked) -> bytes:
    """The body of the GENERATE message that the request means; raises InvalidInput."""
    wishes = {name: asked.parameters[name] for name in _WISHES if name in asked.parameters}
    if isinstance(wishes.get("stop"), str):
        wishes["stop"] = [wishes["stop"]]
    message = {"prompts": [_text(asked)], "stream": True, **wishes}
    return orjson.dumps(Asked.from_message(message).to_message())


def _text(asked: transcoding.Asked) -> str:
    """The only text of the only input."""
    document = orjson.loads(asked.pieces[0])
    inputs = document["inputs"]
    data = b"".join(asked.pieces[1:])
    is_one_text = (
        len(inputs) == 1
        and (inputs[0]["name"], inputs[0]["datatype"]) == (TEXT_INPUT, "BYTES")
        and len(data) >= 4
        and struct.unpack_from("<I", data)[0] == len(data) - 4
    )
    if not is_one_text:
        raise InvalidInput(
            f'A request with the parameter "{STREAM_PARAMETER}" needs one input, "{TEXT_INPUT}", of BYTES with '
            "one text."
        )
    try:
        return data[4:].decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f'Input "{TEXT_INPUT}" is no UTF-8: {error}.', input=TEXT_INPUT) from None


def responses(asked: transcoding.Asked, version: str, told: wire.Message) -> Iterator[list[bytes | memoryview]]:
    """Serialised ModelInferResponses for a message of the model's process: of a PART one for each piece of text, of the
    ANSWER one without text that says how many tokens it came to."""
    content = orjson.loads(told.body)
    for choice in content.get("choices", ()):
        text = choice["text"].encode()
        response = _response(asked, version, is_final=False)
        if choice["finish_reason"] is not None:
            response.parameters["finish_reason"].string_param = choice["finish_reason"]
        response.outputs.add(name=TEXT_OUTPUT, datatype="BYTES", shape=[1])
        response.raw_output_contents.append(struct.pack("<I", len(text)) + text)
        yield [response.SerializeToString()]
    if told.kind != wire.Kind.PART:
        response = _response(asked, version, is_final=True)
        for name, count in content["usage"].items():
            response.parameters[name].int64_param = count
        yield [response.SerializeToString()]


def _response(asked: transcoding.Asked, version: str, *, is_final: bool) -> Any:
    response = transcoding.ModelInferResponse(model_name=asked.name, model_version=version, id=asked.request_id)
    response.parameters[transcoding.FINAL_PARAMETER].bool_param = is_final
    return response
