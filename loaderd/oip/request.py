"""An inference request, checked against the model's signature.

Every prediction passes through here, so what is as it should be is read straight on; only what is not is looked at
again for the sentence that says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from loaderd.errors import InvalidInput
from loaderd.frameworks.base import Signature, TensorSpec
from loaderd.oip import datatypes

_MAX_RANK = 32
_MAX_SIZE = 2**31
_NOTHING = memoryview(b"")


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """classification: answer with the so many best as "value:index:label"; 0: with the values."""

    name: str
    binary: bool
    classification: int = 0


@dataclass(slots=True)
class InferRequest:
    """request_id: None when the client gave none. outputs: those to answer with, in order. items: the batch size.

    priority: 1 is the highest, then 2 and so on; 0 when the client gave none. timeout_seconds: how long the client lets
    it wait for its call; None: no limit of its own.
    """

    request_id: str | None
    inputs: dict[str, np.ndarray]
    outputs: tuple[RequestedOutput, ...]
    items: int
    priority: int = 0
    timeout_seconds: float | None = None


class _Plan:
    """What reading needs of a signature, worked out once."""

    __slots__ = ("all_binary", "all_json", "classifiable", "inputs", "outputs", "signature")

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.inputs = {spec.name: spec for spec in signature.inputs}
        self.outputs = [spec.name for spec in signature.outputs]
        self.classifiable = [spec.name for spec in signature.outputs if is_classifiable(spec, signature)]
        self.all_json = tuple(RequestedOutput(name, False) for name in self.outputs)
        self.all_binary = tuple(RequestedOutput(name, True) for name in self.outputs)


_plan = _Plan(Signature((), ()))


def _planned(signature: Signature) -> _Plan:
    """A process serves one model: the newest signature's plan is kept."""
    global _plan
    _plan = _Plan(signature)
    return _plan


def is_classifiable(spec: TensorSpec, signature: Signature) -> bool:
    """Whether an output has a number for each of the signature's labels."""
    return bool(
        signature.labels
        and spec.datatype in ("FP16", "BF16", "FP32", "FP64")
        and len(spec.shape) == 2
        and spec.shape[1] == len(signature.labels)
    )


def parse(body: bytes | bytearray, header_bytes: int | None, signature: Signature) -> InferRequest:
    """The request that a body holds. header_bytes: length of its JSON part; None when it is all JSON.

    Raises InvalidInput with a sentence that names the tensor, what was expected and what came.
    """
    plan = _plan if _plan.signature is signature else _planned(signature)
    if header_bytes is None:
        document, binary = read_json(body), _NOTHING
    else:
        view = memoryview(body)
        if not 0 <= header_bytes <= len(body):
            raise InvalidInput(
                f"Inference-Header-Content-Length is {header_bytes} and the body has {len(body)} bytes.",
            )
        document, binary = read_json(view[:header_bytes]), view[header_bytes:]
    inputs, items = _inputs(_member(document, "inputs", list, required=True), binary, plan)
    request_id = _member(document, "id", str) if "id" in document else None
    if "outputs" not in document and "parameters" not in document:
        return InferRequest(request_id, inputs, plan.all_json, items)
    parameters = _member(document, "parameters", dict) or {}
    return InferRequest(
        request_id,
        inputs,
        _outputs(_member(document, "outputs", list), parameters.get("binary_data_output") is True, plan),
        items,
        *_wishes(parameters),
    )


def read_json(body: bytes | bytearray | memoryview) -> dict[str, Any]:
    """The JSON object of a body; raises InvalidInput."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"The request's JSON cannot be read: {error}.") from None
    if type(document) is not dict:
        raise InvalidInput("The request must be a JSON object.")
    return document


_JSON_WORDS: dict[type, str] = {
    list: "an array", dict: "an object", str: "a string", int: "a whole number", bool: "a boolean", float: "a number"
}  # fmt: skip


def _member(document: dict[str, Any], key: str, kind: type, *, required: bool = False, of: str = "The request") -> Any:
    """The member, which is of this kind, or None when it is not there and need not be; raises InvalidInput."""
    value = document.get(key)
    if type(value) is kind or (value is None and not required):
        return value
    found = "is missing" if value is None else f"is {_name(value)}"
    raise InvalidInput(f'{of} needs "{key}" as {_JSON_WORDS[kind]}; it {found}.')


def _name(value: Any) -> str:
    return _JSON_WORDS.get(type(value), f"a {type(value).__name__}")


def _inputs(entries: list[Any], binary: memoryview, plan: _Plan) -> tuple[dict[str, np.ndarray], int]:
    """The arrays by name, and how many items they hold."""
    specs = plan.inputs
    found: dict[str, np.ndarray] = {}
    at, items = 0, -1
    for entry in entries:
        if type(entry) is not dict:
            raise InvalidInput(f'Each entry of "inputs" must be an object, not {_name(entry)}.')
        name: Any = entry.get("name")
        if type(name) is not str:
            _member(entry, "name", str, required=True, of='Each entry of "inputs"')
        spec = specs.get(name)
        if spec is None:
            raise InvalidInput(f'The model has no input "{name}"; it takes {_listed(specs)}.', input=name)
        if name in found:
            raise InvalidInput(f'Input "{name}" is given twice.', input=name)
        datatype = entry.get("datatype")
        if datatype != spec.datatype:
            _member(entry, "datatype", str, required=True, of=f'Input "{name}"')
            raise InvalidInput(f'Input "{name}" must be {spec.datatype}, not {datatype}.', input=name)
        shape = _shape(name, entry.get("shape"), entry)
        size = _binary_size(name, entry) if "parameters" in entry else None
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
        found[name] = array = fitted(array, spec)
        if items < 0:
            items = len(array)
    if at != len(binary):
        raise InvalidInput(f"The body has {len(binary) - at} bytes more than its inputs announce.")
    if len(found) != len(specs):
        missing = [name for name in specs if name not in found]
        raise InvalidInput(f"The request lacks the input {_listed(missing)}.", input=missing[0])
    if len(found) > 1 or items < 1:
        batch_size(found)
    return found, items


def _listed(names: Any) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _shape(name: str, shape: Any, entry: dict[str, Any]) -> tuple[int, ...]:
    if type(shape) is not list:
        _member(entry, "shape", list, required=True, of=f'Input "{name}"')
    if len(shape) <= _MAX_RANK:
        for size in shape:
            if type(size) is not int or not 0 <= size < _MAX_SIZE:
                break
        else:
            return tuple(shape)
    raise InvalidInput(
        f'Input "{name}" has the shape {shape[:_MAX_RANK]}; '
        f"it needs at most {_MAX_RANK} whole numbers from 0 to {_MAX_SIZE - 1}.",
        input=name,
    )


def _binary_size(name: str, entry: dict[str, Any]) -> int | None:
    """How many bytes of the body's binary part are its data; None when they stand in the JSON."""
    parameters = _member(entry, "parameters", dict, of=f'Input "{name}"')
    if not parameters:
        return None
    if "shared_memory_region" in parameters:
        raise InvalidInput(f'Input "{name}" asks for shared memory, which is not offered; send its data.')
    size: int | None = _member(parameters, "binary_data_size", int, of=f'The parameters of input "{name}"')
    return size


def fitted(array: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """The array in the signature's shape; [n, 1] counts as [n], as other servers want it. Raises InvalidInput."""
    shape, wanted = array.shape, spec.shape
    if len(wanted) == 1:
        if len(shape) == 1:
            return array
        if len(shape) > 1 and array.size == shape[0]:
            return array.reshape(-1)
    elif len(shape) == len(wanted):
        for size, bound in zip(shape, wanted, strict=True):
            if size != bound and bound != -1:
                break
        else:
            return array
    raise InvalidInput(
        f'Input "{spec.name}" must have the shape {list(wanted)} (-1: any size), not {list(shape)}.', input=spec.name
    )


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


def _outputs(entries: Sequence[Any] | None, by_default: bool, plan: _Plan) -> tuple[RequestedOutput, ...]:
    if not entries:
        return plan.all_binary if by_default else plan.all_json
    wanted: dict[str, RequestedOutput] = {}
    for entry in entries:
        if type(entry) is not dict:
            raise InvalidInput(f'Each entry of "outputs" must be an object, not {_name(entry)}.')
        name = _member(entry, "name", str, required=True, of='Each entry of "outputs"')
        if name not in plan.outputs:
            raise InvalidInput(f'The model has no output "{name}"; it gives {_listed(plan.outputs)}.', output=name)
        if name in wanted:
            raise InvalidInput(f'Output "{name}" is asked for twice.', output=name)
        own = _member(entry, "parameters", dict, of=f'Output "{name}"') or {}
        if "shared_memory_region" in own:
            raise InvalidInput(f'Output "{name}" asks for shared memory, which is not offered; leave it out.')
        classes = _classes(name, own, plan) if "classification" in own else 0
        wanted[name] = RequestedOutput(name, own.get("binary_data", by_default) is True, classes)
    return tuple(wanted.values())


def _classes(name: str, parameters: dict[str, Any], plan: _Plan) -> int:
    """How many of the best classes an output is to name, 0: none."""
    classes: int = _member(parameters, "classification", int, of=f'Output "{name}"') or 0
    if classes < 0:
        raise InvalidInput(f'Output "{name}" asks for a "classification" of {classes}; it must not be negative.')
    if classes and name not in plan.classifiable:
        offered = f"{_listed(plan.classifiable)} has them" if plan.classifiable else "this model has none"
        raise InvalidInput(
            f'Output "{name}" asks for "classification", which needs a number for each label; {offered}.',
            output=name,
        )
    return classes


def _wishes(parameters: dict[str, Any]) -> tuple[int, float | None]:
    """(priority, timeout in seconds) of a request's parameters; raises InvalidInput also for those of sequences."""
    if parameters.get("sequence_id"):
        raise InvalidInput(
            'The parameter "sequence_id" is refused: every request is answered by itself, no model here keeps a state '
            "from one to the next."
        )
    priority = _member(parameters, "priority", int, of='"parameters"') or 0
    timeout = _member(parameters, "timeout", int, of='"parameters"')
    if priority < 0 or (timeout is not None and timeout < 0):
        raise InvalidInput('The parameters "priority" and "timeout" (microseconds) must not be negative.')
    return priority, timeout / 1e6 if timeout else None
