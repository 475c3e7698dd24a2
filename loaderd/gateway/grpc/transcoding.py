"""A ModelInferRequest as the model processes know requests, and their answers as a ModelInferResponse.

Raw tensors are byte for byte those of the binary tensor extension, so they are cut out of the message and put into the
answer as they are; the message classes only ever see what stands beside them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from loaderd import wire
from loaderd.errors import InvalidInput, LoaderdError, PredictionFailed
from loaderd.gateway.grpc.messages import message_class, parsed
from loaderd.oip.datatypes import NUMPY_TYPES

ModelInferRequest = message_class("ModelInferRequest")
ModelInferResponse = message_class("ModelInferResponse")

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
FINAL_PARAMETER = "triton_final_response"  # true in the last answer that a streamed request gets

_LENGTH_DELIMITED = 2
_RAW_INPUT = ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number
_RAW_OUTPUT = bytes([ModelInferResponse.DESCRIPTOR.fields_by_name["raw_output_contents"].number << 3 | 2])

# Where the elements of each datatype stand when they are not raw, and as what they are read from there.
_CONTENTS = {
    "BOOL": ("bool_contents", "?"),
    "INT8": ("int_contents", "<i4"),
    "INT16": ("int_contents", "<i4"),
    "INT32": ("int_contents", "<i4"),
    "INT64": ("int64_contents", "<i8"),
    "UINT8": ("uint_contents", "<u4"),
    "UINT16": ("uint_contents", "<u4"),
    "UINT32": ("uint_contents", "<u4"),
    "UINT64": ("uint64_contents", "<u8"),
    "FP32": ("fp32_contents", "<f4"),
    "FP64": ("fp64_contents", "<f8"),
    "BYTES": ("bytes_contents", "O"),
}


class AnswerTooLarge(LoaderdError):
    code = "answer_too_large"
    http_status = 413


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, ready for its model process. version: None when the client named none. request_id: "" for none.
    parameters: of the request as a whole."""

    name: str
    version: str | None
    request_id: str
    parameters: Mapping[str, Any]
    head: dict[str, Any]
    pieces: Sequence[bytes | memoryview]


def read(message: bytes) -> Asked:
    """The request that a serialised ModelInferRequest holds; raises InvalidInput."""
    rest, raw = _without_raw(message)
    request = parsed(ModelInferRequest, rest)
    tensors: list[bytes | memoryview] = [*(_raw(request, raw) if raw else _typed(request))]
    parameters = parameters_of(request.parameters)
    document: dict[str, Any] = {
        **({"id": request.id} if request.id else {}),  # first, where the cache of answers looks for it
        "parameters": {**parameters, "binary_data_output": True},
        "inputs": [
            {
                "name": given.name,
                "datatype": given.datatype,
                "shape": list(given.shape),
                "parameters": {**parameters_of(given.parameters), "binary_data_size": len(data)},
            }
            for given, data in zip(request.inputs, tensors, strict=True)
        ],
    }
    if request.outputs:
        document["outputs"] = [
            {"name": wanted.name, "parameters": {**parameters_of(wanted.parameters), "binary_data": True}}
            for wanted in request.outputs
        ]
    text = orjson.dumps(document)
    return Asked(
        name=request.model_name,
        version=request.model_version or None,
        request_id=request.id,
        parameters=parameters,
        head={"name": request.model_name, "header_bytes": len(text)},
        pieces=[text, *(data for data in tensors if data)],
    )


def write(answer: wire.Message, parameters: Mapping[str, bool] | None = None) -> list[bytes | memoryview]:
    """The model process's answer as a serialised ModelInferResponse, in pieces. parameters: added to the answer's.

    Raises AnswerTooLarge.
    """
    if not answer.head.isdigit():
        raise PredictionFailed("The model's process answered without binary tensors, which it was asked for.")
    header_bytes = int(answer.head)
    view = memoryview(answer.body)
    document = orjson.loads(view[:header_bytes])
    response = ModelInferResponse(
        model_name=document["model_name"], model_version=document["model_version"], id=document.get("id", "")
    )
    _set_parameters(response.parameters, {**document.get("parameters", {}), **(parameters or {})})
    pieces: list[bytes | memoryview] = []
    at = header_bytes
    for given in document["outputs"]:
        own = given.get("parameters", {})
        size = own.pop("binary_data_size")
        output = response.outputs.add(name=given["name"], datatype=given["datatype"], shape=given["shape"])
        _set_parameters(output.parameters, own)
        pieces += [_RAW_OUTPUT + _varint(size), view[at : at + size]]
        at += size
    pieces.insert(0, response.SerializeToString())
    size = sum(map(len, pieces))
    if size > MAX_MESSAGE_BYTES:
        raise AnswerTooLarge(
            f"The answer of {document['model_name']} has {size} bytes and a message may have {MAX_MESSAGE_BYTES}; "
            "send fewer items at once or ask for fewer outputs.",
            size_bytes=size,
            limit_bytes=MAX_MESSAGE_BYTES,
        )
    return pieces


def embedded(field_number: int, pieces: Iterable[bytes | memoryview]) -> list[bytes | memoryview]:
    """A serialised message as the field of another one."""
    inner = list(pieces)
    return [bytes([field_number << 3 | _LENGTH_DELIMITED]) + _varint(sum(map(len, inner))), *inner]


def _without_raw(message: bytes) -> tuple[bytes, list[memoryview]]:
    """The message less its raw_input_contents, and these; raises InvalidInput where it is cut off."""
    view, end = memoryview(message), len(message)
    kept: list[memoryview] = []
    raw: list[memoryview] = []
    at = 0
    while at < end:
        began = at
        tag, at = _read_varint(message, at)
        match tag & 7:
            case 0:  # varint
                _, at = _read_varint(message, at)
            case 1:  # 64 bits
                at += 8
            case 2:  # length-delimited
                size, start = _read_varint(message, at)
                at = start + size
                if tag >> 3 == _RAW_INPUT and at <= end:
                    raw.append(view[start:at])
                    continue
            case 5:  # 32 bits
                at += 4
            case _:
                at = end + 1
        if at > end:
            raise _unreadable()
        kept.append(view[began:at])
    return b"".join(kept), raw


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 64:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _unreadable()


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _unreadable() -> InvalidInput:
    return InvalidInput("The call's bytes are no ModelInferRequest of inference.proto.")


def _raw(request: Any, raw: Sequence[memoryview]) -> Iterator[memoryview]:
    if len(raw) != len(request.inputs):
        raise InvalidInput(
            f"The request has {len(request.inputs)} inputs and {len(raw)} raw_input_contents; send one for each input, "
            "in their order."
        )
    for given, data in zip(request.inputs, raw, strict=True):
        _refuse_shared_memory(given)
        if given.HasField("contents"):
            raise InvalidInput(
                f'Input "{given.name}" has its elements in contents and in raw_input_contents; send one of them.',
                input=given.name,
            )
        yield data


def _typed(request: Any) -> Iterator[bytes]:
    for given in request.inputs:
        _refuse_shared_memory(given)
        yield _packed(given.name, given.datatype, given.contents)


def _refuse_shared_memory(given: Any) -> None:
    if "shared_memory_region" in given.parameters:
        raise InvalidInput(f'Input "{given.name}" asks for shared memory, which is not offered; send its data.')


def _packed(name: str, datatype: str, contents: Any) -> bytes:
    """The elements as the binary tensor extension wants them; raises InvalidInput."""
    if datatype in ("FP16", "BF16"):
        raise InvalidInput(f'Input "{name}" is {datatype}, which travels in raw_input_contents only.', input=name)
    if datatype not in _CONTENTS:
        raise InvalidInput(
            f'Input "{name}" has the datatype "{datatype}"; there are {", ".join(NUMPY_TYPES)}.', input=name
        )
    field, read_as = _CONTENTS[datatype]
    given = [descriptor.name for descriptor, _ in contents.ListFields()]
    if given not in ([], [field]):
        raise InvalidInput(
            f'Input "{name}" is {datatype}: its elements belong into {field} or raw_input_contents, '
            f"not into {', '.join(other for other in given if other != field)}.",
            input=name,
        )
    elements = getattr(contents, field)
    if datatype == "BYTES":
        return b"".join(part for element in elements for part in (struct.pack("<I", len(element)), element))
    array = np.fromiter(elements, dtype=read_as, count=len(elements))
    wanted = NUMPY_TYPES[datatype]
    if wanted != array.dtype and array.size:
        limits = np.iinfo(wanted)
        low, high = int(array.min()), int(array.max())
        if low < limits.min or high > limits.max:
            raise InvalidInput(
                f'Input "{name}" holds {low if low < limits.min else high}, outside {datatype} '
                f"({limits.min} to {limits.max}).",
                input=name,
            )
    return array.astype(wanted).tobytes()


def parameters_of(given: Any) -> dict[str, Any]:
    """The parameters that have a value."""
    chosen = ((key, value, value.WhichOneof("parameter_choice")) for key, value in given.items())
    return {key: getattr(value, choice) for key, value, choice in chosen if choice is not None}


def _set_parameters(into: Any, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        match value:
            case bool():
                into[key].bool_param = value
            case int():
                into[key].int64_param = value
            case float():
                into[key].double_param = value
            case str():
                into[key].string_param = value
            case _:
                into[key].string_param = orjson.dumps(value).decode()
