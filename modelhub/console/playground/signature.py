"""What a model takes, as the registry keeps it of its last load: read, checked against what people typed, and given an
example of. Plain Python: the web process needs no numpy for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

MADE_UP_LENGTH = 8  # of a dimension that may have any size
MADE_UP_TEXT = "A short text to try the model with."
SHOWN_ERRORS = 5
# Datatype of the Open Inference Protocol -> numpy's name of it, as in docs/inference.md.
DTYPES = {
    "BOOL": "bool",
    "BYTES": "object",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    **{f"{sign}INT{bits}": f"{sign.lower()}int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)},
}


class Unfit(Exception):
    """What somebody typed does not fit: one sentence a place, "" for the whole: {place: sentence}."""

    def __init__(self, problems: Mapping[int, str]) -> None:
        super().__init__("; ".join(problems.values()))
        self.problems = dict(problems)


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output. shape: of a batch; the first dimension counts the items, -1 is any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    @property
    def item_shape(self) -> tuple[int, ...]:
        return self.shape[1:]

    @property
    def is_text(self) -> bool:
        return self.datatype == "BYTES"

    @property
    def words(self) -> str:
        """ "13 numbers (FP32)", "one text", "8 x 8 whole numbers (INT64)"."""
        kind = self.datatype
        many, one = ("texts", "one text") if self.is_text else ("numbers", "one number")
        if kind == "BOOL":
            many, one = "true or false", "true or false"
        elif "INT" in kind:
            many, one = "whole numbers", "one whole number"
        of = "" if self.is_text else f" ({kind})"
        if not self.item_shape:
            return f"{one}{of}"
        sizes = " x ".join("any number of" if size == -1 else str(size) for size in self.item_shape)
        return f"{sizes} {many}{of}"


@dataclass(frozen=True, slots=True)
class Signature:
    """inputs, outputs: what it takes and gives. labels: of its classes, in order, or None. sample: an item that it
    answers."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    labels: tuple[str, ...] | None
    sample: Any

    @property
    def takes_text(self) -> bool:
        return len(self.inputs) == 1 and self.inputs[0].is_text and not self.inputs[0].item_shape

    @property
    def has_probabilities(self) -> bool:
        return any(output.name == "probabilities" for output in self.outputs)

    def takes_the_same(self, other: Signature) -> bool:
        return self.inputs == other.inputs


def read(stored: Any) -> Signature | None:
    """The signature as the registry keeps it; None before the first load."""
    if not isinstance(stored, Mapping) or not stored.get("inputs"):
        return None
    inputs = tuple(map(_tensor, stored["inputs"]))
    samples = (stored.get("sample_input") or {}).get("inputs") or []
    labels = stored.get("labels")
    return Signature(
        inputs=inputs,
        outputs=tuple(map(_tensor, stored.get("outputs") or ())),
        labels=None if labels is None else tuple(labels),
        sample=samples[0] if samples else _made_up(inputs),
    )


def _tensor(described: Mapping[str, Any]) -> Tensor:
    return Tensor(described["name"], described["datatype"], tuple(described["shape"]))


def _made_up(inputs: Sequence[Tensor]) -> Any:
    """An item by shape and datatype alone."""
    items = {tensor.name: _filled(tensor, tensor.item_shape) for tensor in inputs}
    return items if len(inputs) > 1 else items[inputs[0].name]


def _filled(tensor: Tensor, shape: Sequence[int]) -> Any:
    if not shape:
        return MADE_UP_TEXT if tensor.is_text else False if tensor.datatype == "BOOL" else 0
    return [_filled(tensor, shape[1:]) for _ in range(MADE_UP_LENGTH if shape[0] == -1 else shape[0])]


# What somebody typed


def texts_in(typed: Sequence[str]) -> list[str]:
    """The texts of as many fields; raises Unfit with the places of empty ones. Lines end as they do in Python."""
    texts = [text.replace("\r\n", "\n") for text in typed]
    empty = {place: "Write a text, or remove this input." for place, text in enumerate(texts) if not text.strip()}
    if empty:
        raise Unfit(empty)
    return texts


def rows_in(typed: str, signature: Signature) -> list[Any]:
    """The items of a field with one JSON value a line; raises Unfit with the numbers of the lines, from 1."""
    items: list[Any] = []
    problems: dict[int, str] = {}
    for number, line in enumerate(typed.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            item = json.loads(line, parse_constant=_no_number)
            _check(item, signature)
        except json.JSONDecodeError as error:
            problems[number] = f"This is not JSON at character {error.pos + 1}: {error.msg.lower()}."
        except RecursionError:
            problems[number] = "This is nested too deep."
        except ValueError as error:
            problems[number] = str(error)
        else:
            items.append(item)
    if problems:
        raise Unfit(dict(list(problems.items())[:SHOWN_ERRORS]))
    if not items:
        raise Unfit({0: "Write at least one line, or begin with the sample."})
    _check_equal_shapes(items, signature)
    return items


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON.")


def _check(item: Any, signature: Signature) -> None:
    """Raises ValueError with a sentence that says where and what."""
    if len(signature.inputs) == 1 and not isinstance(item, dict):
        _check_value(item, signature.inputs[0], signature.inputs[0].item_shape, "")
        return
    wanted = [tensor.name for tensor in signature.inputs]
    if not isinstance(item, dict):
        raise ValueError(f"Each line must be an object with {_listed(wanted)}.")
    missing = [name for name in wanted if name not in item]
    unknown = [name for name in item if name not in wanted]
    if missing or unknown:
        told = [f"lacks {_listed(missing)}"] if missing else []
        told += [f"has {_listed(unknown)}, which the model does not take"] if unknown else []
        raise ValueError(f"The object {' and '.join(told)}; it takes {_listed(wanted)}.")
    for tensor in signature.inputs:
        _check_value(item[tensor.name], tensor, tensor.item_shape, f"{tensor.name}: ")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _check_value(value: Any, tensor: Tensor, shape: Sequence[int], where: str) -> None:
    if shape:
        if not isinstance(value, list):
            raise ValueError(f"{where or 'The line '}must be {tensor.words} in brackets, not {_name(value)}.")
        if shape[0] not in (-1, len(value)):
            counted = f"{len(value)} value{'' if len(value) == 1 else 's'}"
            raise ValueError(f"{where}{counted}, and the model takes {shape[0]} there.")
        for place, inner in enumerate(value, start=1):
            _check_value(inner, tensor, shape[1:], f"{where}value {place} ")
        return
    fits = {
        "BYTES": isinstance(value, str),
        "BOOL": isinstance(value, bool),
    }.get(tensor.datatype, _is_number(value, whole="INT" in tensor.datatype))
    if not fits:
        wanted = {"BYTES": "a text in quotes", "BOOL": "true or false"}.get(
            tensor.datatype, "a whole number" if "INT" in tensor.datatype else "a number"
        )
        raise ValueError(f"{where or 'The line '}must be {wanted}, not {_name(value)}.")
    if tensor.datatype.startswith("UINT") and value < 0:
        raise ValueError(f"{where or 'The line '}must not be negative ({tensor.datatype}).")


def _is_number(value: Any, *, whole: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) if whole else isfinite(value) if isinstance(value, float) else True


def _name(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), f"{json.dumps(value)[:20]}")


def _check_equal_shapes(items: Sequence[Any], signature: Signature) -> None:
    """Of one request all items have the same shape, also where the model takes any size. Raises Unfit."""
    for tensor in signature.inputs:
        shapes = [shape_of(value_of(item, tensor, signature)) for item in items]
        for number, shape in enumerate(shapes, start=1):
            if shape != shapes[0]:
                raise Unfit(
                    {
                        number: f"Input {number} has the shape {list(shape)} and the first one {list(shapes[0])}; "
                        "ask them one after the other."
                    }
                )


def value_of(item: Any, tensor: Tensor, signature: Signature) -> Any:
    """What an item gives for one input."""
    return item[tensor.name] if isinstance(item, dict) else item


def shape_of(value: Any) -> tuple[int, ...]:
    """Of a nested list, by its first elements: all are equal, or were refused."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return tuple(shape)


def columns_of(items: Sequence[Any], signature: Signature) -> list[tuple[Tensor, list[int], list[Any]]]:
    """The items as tensors of a request: (input, shape, data), the data nested as typed."""
    found = []
    for tensor in signature.inputs:
        data = [value_of(item, tensor, signature) for item in items]
        found.append((tensor, list(shape_of(data)), data))
    return found


def as_line(item: Any) -> str:
    return json.dumps(item, ensure_ascii=False)
