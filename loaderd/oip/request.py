"""An inference request, checked against the model's signature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from loaderd.errors import InvalidInput
from loaderd.frameworks.base import Signature, TensorSpec
from loaderd.oip import datatypes


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    name: str
    binary: bool


@dataclass(frozen=True, slots=True)
class InferRequest:
    """request_id: None when the client gave none. outputs: those to answer with, in order. items: the batch size."""

    request_id: str | None
    inputs: dict[str, np.ndarray]
    outputs: tuple[RequestedOutput, ...]
    items: int


def parse(body: bytes | bytearray, header_bytes: int | None, signature: Signature) -> InferRequest:
    """The request that a body holds. header_bytes: length of its JSON part; None when it is all JSON.

    Raises InvalidInput with a sentence that names the tensor, what was expected and what came.
    """
    view = memoryview(body)
    if header_bytes is not None and not 0 <= header_bytes <= len(body):
        raise InvalidInput(
            f"Inference-Header-Content-Length is {header_bytes} and the body has {len(body)} bytes.",
        )
    document = read_json(view[:header_bytes] if header_bytes is not None else body)
    binary = view[header_bytes:] if header_bytes is not None else view[:0]
    inputs = _inputs(_member(document, "inputs", list, required=True), binary, signature)
    request_id = _member(document, "id", str)
    parameters = _member(document, "parameters", dict) or {}
    return InferRequest(
        request_id=request_id,
        inputs=inputs,
        outputs=_outputs(_member(document, "outputs", list), parameters, signature),
        items=batch_size(inputs),
    )


def read_json(body: bytes | bytearray | memoryview) -> dict[str, Any]:
    """The JSON object of a body; raises InvalidInput."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"The request's JSON cannot be read: {error}.") from None
    if not isinstance(document, dict):
        raise InvalidInput("The request must be a JSON object.")
    return document


_JSON_WORDS = {list: "an array", dict: "an object", str: "a string", int: "a whole number"}


def _member(
    document: Mapping[str, Any], key: str, kind: type, *, required: bool = False, of: str = "The request"
) -> Any:
    value = document.get(key)
    if value is None and not required:
        return None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        found = "is missing" if value is None else f"is {_name(value)}"
        raise InvalidInput(f'{of} needs "{key}" as {_JSON_WORDS[kind]}; it {found}.')
    return value


def _name(value: Any) -> str:
    return _JSON_WORDS.get(type(value), f"a {type(value).__name__}")


def _inputs(entries: list[Any], binary: memoryview, signature: Signature) -> dict[str, np.ndarray]:
    specs = {spec.name: spec for spec in signature.inputs}
    found: dict[str, np.ndarray] = {}
    at = 0
    for entry in entries:
        if not isinstance(entry, dict):
            raise InvalidInput(f'Each entry of "inputs" must be an object, not {_name(entry)}.')
        name = _member(entry, "name", str, required=True, of='Each entry of "inputs"')
        spec = specs.get(name)
        if spec is None:
            raise InvalidInput(f'The model has no input "{name}"; it takes {_listed(specs)}.', input=name)
        if name in found:
            raise InvalidInput(f'Input "{name}" is given twice.', input=name)
        of = f'Input "{name}"'
        datatype = _member(entry, "datatype", str, required=True, of=of)
        if datatype != spec.datatype:
            raise InvalidInput(f'Input "{name}" must be {spec.datatype}, not {datatype}.', input=name)
        shape = _shape(name, _member(entry, "shape", list, required=True, of=of))
        parameters = _member(entry, "parameters", dict, of=of) or {}
        if "shared_memory_region" in parameters:
            raise InvalidInput(f'Input "{name}" asks for shared memory, which is not offered; send its data.')
        size = _member(parameters, "binary_data_size", int, of=f'The parameters of input "{name}"')
        if size is None:
            array = datatypes.from_json(name, datatype, shape, entry.get("data"))
        else:
            if size < 0 or at + size > len(binary):
                raise InvalidInput(
                    f'Input "{name}" announces {size} binary bytes and {len(binary) - at} are left in the body; '
                    "the JSON part's length belongs into the header Inference-Header-Content-Length.",
                    input=name,
                )
            array = datatypes.from_binary(name, datatype, shape, binary[at : at + size])
            at += size
        found[name] = fitted(array, spec)
    if at != len(binary):
        raise InvalidInput(f"The body has {len(binary) - at} bytes more than its inputs announce.")
    missing = [name for name in specs if name not in found]
    if missing:
        raise InvalidInput(f"The request lacks the input {_listed(missing)}.", input=missing[0])
    return found


def _listed(names: Any) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _shape(name: str, shape: list[Any]) -> tuple[int, ...]:
    if len(shape) > 32 or not all(type(size) is int and 0 <= size < 2**31 for size in shape):
        raise InvalidInput(
            f'Input "{name}" has the shape {shape[:32]}; it needs at most 32 whole numbers from 0 to {2**31 - 1}.',
            input=name,
        )
    return tuple(shape)


def fitted(array: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """The array in the signature's shape; [n, 1] counts as [n], as other servers want it. Raises InvalidInput."""
    if len(spec.shape) == 1 and array.ndim > 1 and array.size == array.shape[0]:
        array = array.reshape(-1)
    fits = array.ndim == len(spec.shape) and all(
        wanted in (-1, size) for size, wanted in zip(array.shape, spec.shape, strict=True)
    )
    if not fits:
        raise InvalidInput(
            f'Input "{spec.name}" must have the shape {list(spec.shape)} (-1: any size), not {list(array.shape)}.',
            input=spec.name,
        )
    return array


def batch_size(inputs: Mapping[str, np.ndarray]) -> int:
    """The first dimension that all inputs share; raises InvalidInput when they differ or it is 0."""
    sizes = {name: len(array) for name, array in inputs.items()}
    items = next(iter(sizes.values()))
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f'"{name}" {size}' for name, size in sizes.items())
        raise InvalidInput(f"The inputs must hold equally many items; they hold: {listed}.")
    if items == 0:
        raise InvalidInput("The request holds no items: the first dimension of its inputs is 0.")
    return items


def _outputs(
    entries: list[Any] | None, parameters: Mapping[str, Any], signature: Signature
) -> tuple[RequestedOutput, ...]:
    by_default = parameters.get("binary_data_output") is True
    known = [spec.name for spec in signature.outputs]
    if not entries:
        return tuple(RequestedOutput(name, by_default) for name in known)
    wanted = []
    for entry in entries:
        if not isinstance(entry, dict):
            raise InvalidInput(f'Each entry of "outputs" must be an object, not {_name(entry)}.')
        name = _member(entry, "name", str, required=True, of='Each entry of "outputs"')
        if name not in known:
            raise InvalidInput(f'The model has no output "{name}"; it gives {_listed(known)}.', output=name)
        own = _member(entry, "parameters", dict, of=f'Output "{name}"') or {}
        for refused in ("classification", "shared_memory_region"):
            if own.get(refused):
                raise InvalidInput(f'Output "{name}" asks for "{refused}", which is not offered; leave it out.')
        wanted.append(RequestedOutput(name, own.get("binary_data", by_default) is True))
    return tuple(wanted)
