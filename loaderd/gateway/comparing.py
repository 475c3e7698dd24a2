"""Whether two versions answered the same, item by item: the label where there is one, else all that they gave.

Numbers are equal within rtol 1e-3 and atol 1e-4, texts when they are the same. Works on the bytes of the answers, in
JSON and in binary tensors; costs some 10 us for a small answer, so callers keep it out of the way of others.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import orjson

RELATIVE_TOLERANCE = 1e-3
ABSOLUTE_TOLERANCE = 1e-4
MAX_ANSWER_BYTES = 64 * 1024  # larger answers are not compared: reading them would hold up others
MAX_VALUES = 2048  # of one answer are looked at: as many whole items as that makes, or a part of the first

_LABEL = "label"
_LENGTH = struct.Struct("<I")
_FORMATS = {
    "BOOL": "B",
    "INT8": "b",
    "UINT8": "B",
    "INT16": "h",
    "UINT16": "H",
    "INT32": "i",
    "UINT32": "I",
    "INT64": "q",
    "UINT64": "Q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}

Items = list[Any]
Answer = tuple[bytes, bytes | bytearray]
"""The head (length of the JSON part, empty when all is JSON) and the body."""


class NotComparable(Exception):
    """An answer is too large, or not what an answer looks like."""


def compare(live: Answer, candidate: Answer) -> tuple[int, int]:
    """(items compared, items that differ). Raises NotComparable."""
    try:
        ours, theirs = _items(*live), _items(*candidate)
    except NotComparable:
        raise
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, struct.error) as error:
        raise NotComparable(f"{type(error).__name__}: {error}") from None
    if len(ours) != len(theirs):
        return max(len(ours), len(theirs)), max(len(ours), len(theirs))
    return len(ours), sum(not _same(ours[index], theirs[index]) for index in range(len(ours)))


def _items(head: bytes, body: bytes | bytearray) -> Items:
    if len(body) > MAX_ANSWER_BYTES:
        raise NotComparable(f"an answer of {len(body)} bytes")
    if head:
        length = int(head)
        document, binary = orjson.loads(memoryview(body)[:length]), memoryview(body)[length:]
    else:
        document, binary = orjson.loads(body), memoryview(b"")
    if "predictions" in document:  # the plain form
        predictions = [_of_label(item) for item in document["predictions"]]
        return predictions[: _items_within(_leaves(predictions[0]))] if predictions else []
    return _rows(document["outputs"], binary)


def _of_label(prediction: Any) -> Any:
    """What is compared of one prediction in plain form."""
    return prediction[_LABEL] if isinstance(prediction, dict) and _LABEL in prediction else prediction


def _rows(outputs: Sequence[dict[str, Any]], binary: memoryview) -> Items:
    """For each item its part of every output, or of the label alone."""
    decisive = [output for output in outputs if output["name"] == _LABEL] or outputs
    items = _items_within(sum(math.prod(output["shape"][1:]) for output in decisive))
    columns: list[list[Any]] = []
    at = 0
    for output in outputs:
        size = output.get("parameters", {}).get("binary_data_size")
        raw = None
        if size is not None:
            raw, at = binary[at : at + size], at + size
        if output in decisive:
            columns.append(_per_item(output, raw, items))
    return [list(row) for row in zip(*columns, strict=True)]


def _per_item(output: dict[str, Any], raw: memoryview | None, items: int) -> list[Any]:
    """The values of each of the first items."""
    shape = output["shape"]
    width = math.prod(shape[1:])
    items = min(items, shape[0] if shape else 1)
    flat = output["data"] if raw is None else _decoded(output["datatype"], raw, items * width)
    return [flat[index * width : index * width + min(width, MAX_VALUES)] for index in range(items)]


def _items_within(values_per_item: int) -> int:
    return max(1, MAX_VALUES // max(1, values_per_item))


def _leaves(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return sum(map(_leaves, value)) if isinstance(value, list) else 1


def _decoded(datatype: str, raw: memoryview, count: int) -> Sequence[Any]:
    """The first `count` elements of a binary tensor."""
    if datatype == "BYTES":
        elements, at = [], 0
        for _ in range(count):
            (length,) = _LENGTH.unpack_from(raw, at)
            elements.append(bytes(raw[at + 4 : at + 4 + length]))
            at += 4 + length
        return elements
    if datatype == "BF16":  # the upper half of a float
        halves = struct.unpack_from(f"<{count}H", raw)
        return struct.unpack(f"<{count}f", struct.pack(f"<{count}I", *(half << 16 for half in halves)))
    return struct.unpack_from(f"<{count}{_FORMATS[datatype]}", raw)


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, float) or isinstance(theirs, float):
        return _is_number(ours) and _is_number(theirs) and _close(ours, theirs)
    if isinstance(ours, (list, tuple)) and isinstance(theirs, (list, tuple)):
        return len(ours) == len(theirs) and all(map(_same, ours, theirs))
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(_same(value, theirs[key]) for key, value in ours.items())
    if isinstance(ours, bytes) != isinstance(theirs, bytes):
        return bool(_text(ours) == _text(theirs))
    return bool(ours == theirs)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _close(ours: float, theirs: float) -> bool:
    if math.isnan(ours) or math.isnan(theirs):
        return math.isnan(ours) and math.isnan(theirs)
    return math.isclose(ours, theirs, rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE)


def _text(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
