"""The protocol's datatypes and numpy: a tensor's data from and to JSON and little-endian bytes.

BYTES are object arrays of `str` (from JSON) or `bytes` (from binary). BF16 has no numpy type: it is read
to float32 and written from it.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np

from loaderd.errors import InvalidInput

NUMPY_TYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("bool"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "BF16": np.dtype("<f4"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype("object"),
}

_ACCEPTED_KINDS = {"b": "b", "u": "iu", "i": "iu", "f": "iuf"}
_WORDS = {"b": "booleans", "u": "whole numbers that are not negative", "i": "whole numbers", "f": "numbers"}
_LENGTH = struct.Struct("<I")


def from_json(name: str, datatype: str, shape: tuple[int, ...], data: Any) -> np.ndarray:
    """The array that a JSON `data` member holds, flat or nested. Raises InvalidInput naming the tensor."""
    if not isinstance(data, list):
        raise InvalidInput(f'Input "{name}" needs its "data" as a JSON array.', input=name)
    array = _texts(name, data) if datatype == "BYTES" else _numbers(name, datatype, data)
    wanted = math.prod(shape)
    if array.size != wanted:
        raise InvalidInput(
            f'Input "{name}" has {array.size} elements and its shape {list(shape)} needs {wanted}.', input=name
        )
    return array.reshape(shape)


def _texts(name: str, data: list[Any]) -> np.ndarray:
    flat = data
    while flat and isinstance(flat[0], list):
        if not all(isinstance(row, list) for row in flat):
            break
        flat = [element for row in flat for element in row]
    if not all(isinstance(element, str) for element in flat):
        raise InvalidInput(f'Input "{name}" is BYTES: each element of its "data" must be a string.', input=name)
    array = np.empty(len(flat), dtype=object)
    array[:] = flat
    return array


def _numbers(name: str, datatype: str, data: list[Any]) -> np.ndarray:
    wanted = NUMPY_TYPES[datatype]
    try:
        array = np.array(data)
    except (ValueError, OverflowError):
        raise InvalidInput(
            f'Input "{name}" is ragged or too deep: the rows of its "data" must have equal lengths.', input=name
        ) from None
    if datatype == "UINT64" and array.dtype.kind == "f":
        # numpy reads 0 beside 2**63 as floats; as Python's numbers they are still exact.
        exact = np.array(data, dtype=object)
        array = exact.astype("u8") if all(type(value) is int and 0 <= value < 2**64 for value in exact.flat) else array
    if array.size and array.dtype.kind not in _ACCEPTED_KINDS[wanted.kind]:
        raise InvalidInput(
            f'Input "{name}" is {datatype}: its "data" must hold {_WORDS[wanted.kind]} only.',
            input=name,
        )
    if wanted.kind in "iu" and array.size:
        limits = np.iinfo(wanted)
        low, high = int(array.min()), int(array.max())
        if low < limits.min or high > limits.max:
            raise InvalidInput(
                f'Input "{name}" holds {low if low < limits.min else high}, outside {datatype} '
                f"({limits.min} to {limits.max}).",
                input=name,
            )
    with np.errstate(over="ignore"):
        return array.astype(wanted, copy=False)


def from_binary(name: str, datatype: str, shape: tuple[int, ...], data: memoryview) -> np.ndarray:
    """The array that a binary tensor holds; shares the memory where it can. Raises InvalidInput."""
    wanted = math.prod(shape)
    if datatype == "BYTES":
        return _split_bytes(name, wanted, data).reshape(shape)
    element_bytes = 2 if datatype == "BF16" else NUMPY_TYPES[datatype].itemsize
    if len(data) != wanted * element_bytes:
        raise InvalidInput(
            f'Input "{name}" has {len(data)} bytes; {datatype} of shape {list(shape)} needs {wanted * element_bytes}.',
            input=name,
        )
    if datatype == "BF16":
        widened = np.frombuffer(data, dtype="<u2").astype("<u4")
        widened <<= 16
        return widened.view("<f4").reshape(shape)
    if datatype == "BOOL":
        return (np.frombuffer(data, dtype="u1") != 0).reshape(shape)
    array = np.frombuffer(data, dtype=NUMPY_TYPES[datatype]).reshape(shape)
    # Libraries refuse or warn about arrays that are read-only or not aligned; small ones are cheap to copy.
    return np.require(array, requirements=["C", "A", "W"])


def _split_bytes(name: str, count: int, data: memoryview) -> np.ndarray:
    if len(data) < 4 * count:
        raise InvalidInput(f'Input "{name}" has {len(data)} bytes, too few for {count} elements.', input=name)
    array = np.empty(count, dtype=object)
    at, end = 0, len(data)
    for index in range(count):
        start = at + 4
        at = start + _LENGTH.unpack_from(data, at)[0] if start <= end else end + 1
        if at > end:
            raise InvalidInput(f'Input "{name}" ends within element {index} of {count}.', input=name)
        array[index] = bytes(data[start:at])
    if at != end:
        raise InvalidInput(f'Input "{name}" has {end - at} bytes behind its {count} elements.', input=name)
    return array


def as_datatype(array: np.ndarray, datatype: str) -> np.ndarray:
    """The array in the memory layout that the two writers below need."""
    return np.ascontiguousarray(array, dtype=NUMPY_TYPES[datatype])


def to_binary(array: np.ndarray, datatype: str) -> bytes | memoryview:
    """The tensor as the binary extension wants it; a view of the array's memory where it can be."""
    if datatype == "BYTES":
        elements = [_encoded(element) for element in array.ravel()]
        return b"".join(part for element in elements for part in (_LENGTH.pack(len(element)), element))
    if array.size == 0:
        return b""
    if datatype == "BF16":
        return _rounded_to_bf16(array).tobytes()
    return array.reshape(-1).view("u1").data


def _rounded_to_bf16(array: np.ndarray) -> np.ndarray:
    """The upper halves of the floats, rounded to nearest even; NaN stays NaN."""
    bits = array.view("<u4").astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(array), 0x7FC0, rounded).astype("<u2")


def to_json(array: np.ndarray, datatype: str) -> Any:
    """The flat data for orjson with OPT_SERIALIZE_NUMPY. Raises UnicodeDecodeError for BYTES that are no text."""
    if datatype == "BYTES":
        return [as_text(element) for element in array.ravel()]
    return array.reshape(-1)


def as_text(element: Any) -> str:
    return element.decode() if isinstance(element, bytes) else str(element)


def _encoded(element: Any) -> bytes:
    return element if isinstance(element, bytes) else str(element).encode()
