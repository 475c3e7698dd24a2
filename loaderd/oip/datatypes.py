"""The protocol's datatypes and numpy: a tensor's data from and to JSON and little-endian bytes.

BYTES are object arrays of `str` (from JSON) or `bytes` (from binary). BF16 has no numpy type: it is read
to float32 and written from it, rounded to what a BF16 can hold.

Numbers of a JSON array are packed by `struct` where they are what the datatype wants, which takes half as long as
numpy's own look at a list; numpy reads the rest, and says what is wrong with it.
"""

from __future__ import annotations

import math
import struct
from itertools import chain
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

# How `struct` packs a number of each; it refuses what the type cannot hold. BOOL is not among them: it takes anything.
_CODES = {
    "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q",
    "FP16": "e", "BF16": "f", "FP32": "f", "FP64": "d",
}  # fmt: skip
_ROW_NUMBERS = 16_384  # packed at once
_ACCEPTED_KINDS = {"b": "b", "u": "iu", "i": "iu", "f": "iuf"}
_WORDS = {"b": "booleans", "u": "whole numbers that are not negative", "i": "whole numbers", "f": "numbers"}
_LENGTH = struct.Struct("<I")


def from_json(name: str, datatype: str, shape: tuple[int, ...], data: Any) -> np.ndarray:
    """The array that a JSON `data` member holds, flat or nested. Raises InvalidInput naming the tensor."""
    if type(data) is not list:
        raise InvalidInput(f'Input "{name}" needs its "data" as a JSON array.', input=name)
    array = _texts(name, data) if datatype == "BYTES" else _numbers(name, datatype, data)
    if array.shape == shape:
        return array
    wanted = math.prod(shape)
    if array.size != wanted:
        raise InvalidInput(
            f'Input "{name}" has {array.size} elements and its shape {list(shape)} needs {wanted}.', input=name
        )
    return array.reshape(shape)


def _texts(name: str, data: list[Any]) -> np.ndarray:
    kinds = {*map(type, data)}
    while kinds == {list}:
        data = [element for row in data for element in row]
        kinds = {*map(type, data)}
    if kinds - {str}:
        raise InvalidInput(f'Input "{name}" is BYTES: each element of its "data" must be a string.', input=name)
    array = np.empty(len(data), dtype=object)
    array[:] = data
    return array


def _numbers(name: str, datatype: str, data: list[Any]) -> np.ndarray:
    """Flat where they were packed."""
    code = _CODES.get(datatype)
    if code is not None and data:
        packed = _packed(code, data)
        if packed is not None:
            array = np.frombuffer(packed, dtype=NUMPY_TYPES[datatype])
            return bf16_rounded(array) if datatype == "BF16" else array
    array = _looked_through(name, datatype, data)
    return bf16_rounded(array) if datatype == "BF16" else array


def _packed(code: str, data: list[Any]) -> bytearray | None:
    """The numbers of a flat or evenly nested list, little-endian. None when it holds anything else: not a number, or
    one that does not fit the type."""
    first = data[0]
    try:
        if type(first) is list:
            while type(first[0]) is list:
                if {*map(type, data)} != {list} or len({*map(len, data)}) != 1:
                    return None
                data = list(chain.from_iterable(data))
                first = data[0]
            if type(first[0]) not in (int, float):
                return None
            return _packed_rows(code, data, len(first))
        if type(first) not in (int, float):
            return None
        if len(data) > _ROW_NUMBERS:
            return _packed_pieces(code, data)
        row = struct.Struct(f"<{len(data)}{code}")
        packed = bytearray(row.size)
        row.pack_into(packed, 0, *data)
    except (struct.error, OverflowError, IndexError, TypeError):
        return None
    return packed


def _packed_rows(code: str, rows: list[list[Any]], width: int) -> bytearray | None:
    row = struct.Struct(f"<{width}{code}")
    size = row.size
    packed = bytearray(len(rows) * size)
    at = 0
    for numbers in rows:
        if type(numbers) is not list:
            return None  # a text or an object has a length and elements as well
        row.pack_into(packed, at, *numbers)
        at += size
    return packed


def _packed_pieces(code: str, data: list[Any]) -> bytearray:
    """Bit by bit: packing copies its arguments."""
    packed = bytearray()
    for start in range(0, len(data), _ROW_NUMBERS):
        piece = data[start : start + _ROW_NUMBERS]
        packed += struct.pack(f"<{len(piece)}{code}", *piece)
    return packed


def _looked_through(name: str, datatype: str, data: list[Any]) -> np.ndarray:
    """What numpy makes of the list; raises InvalidInput with what is wrong with it."""
    wanted = NUMPY_TYPES[datatype]
    try:
        array = np.array(data)
    except (ValueError, OverflowError):
        raise InvalidInput(
            f'Input "{name}" is ragged or too deep: the rows of its "data" must have equal lengths.', input=name
        ) from None
    if wanted.kind in "iu" and array.dtype.kind == "f":
        # numpy reads -1 beside 2**63 as floats; as Python's numbers they are still exact.
        exact = np.array(data, dtype=object)
        array = exact if all(type(value) is int for value in exact.flat) else array
    kind = "i" if array.dtype.kind == "O" and all(type(value) is int for value in array.flat) else array.dtype.kind
    if array.size and kind not in _ACCEPTED_KINDS[wanted.kind]:
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
    array = np.frombuffer(data, dtype=NUMPY_TYPES[datatype])
    flags = array.flags
    # Libraries refuse or warn about arrays that are read-only or not aligned.
    return (array if flags.writeable and flags.aligned else array.copy()).reshape(shape)


def _split_bytes(name: str, count: int, data: memoryview) -> np.ndarray:
    if len(data) < 4 * count:
        raise InvalidInput(f'Input "{name}" has {len(data)} bytes, too few for {count} elements.', input=name)
    raw, end = data.tobytes(), len(data)
    elements: list[bytes] = []
    length_at = _LENGTH.unpack_from
    at = 0
    for index in range(count):
        start = at + 4
        at = start + length_at(raw, at)[0] if start <= end else end + 1
        if at > end:
            raise InvalidInput(f'Input "{name}" ends within element {index} of {count}.', input=name)
        elements.append(raw[start:at])
    if at != end:
        raise InvalidInput(f'Input "{name}" has {end - at} bytes behind its {count} elements.', input=name)
    array = np.empty(count, dtype=object)
    array[:] = elements
    return array


def as_datatype(array: np.ndarray, datatype: str) -> np.ndarray:
    """The array in the memory layout that the two writers below need."""
    return np.ascontiguousarray(array, dtype=NUMPY_TYPES[datatype])


def to_binary(array: np.ndarray, datatype: str) -> bytes | memoryview:
    """The tensor as the binary extension wants it; a view of the array's memory where it can be."""
    if datatype == "BYTES":
        return _joined_bytes(array.ravel().tolist())
    if array.size == 0:
        return b""
    if datatype == "BF16":
        return _bf16_halves(array).tobytes()
    return array.reshape(-1).view("u1").data


def _joined_bytes(elements: list[Any]) -> bytes:
    if {*map(type, elements)} == _ONLY_STR:
        encoded = [element.encode() for element in elements]
    else:
        encoded = [_encoded(element) for element in elements]
    pack = _LENGTH.pack
    return b"".join([part for raw in encoded for part in (pack(len(raw)), raw)])


def _bf16_halves(array: np.ndarray) -> np.ndarray:
    """The upper halves of the floats, rounded to nearest even; NaN stays NaN."""
    bits = array.view("<u4").astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(array), 0x7FC0, rounded).astype("<u2")


def bf16_rounded(array: np.ndarray) -> np.ndarray:
    """The floats that a BF16 holds in place of these float32."""
    return (_bf16_halves(array).astype("<u4") << 16).view("<f4")


def to_json(array: np.ndarray, datatype: str) -> Any:
    """The flat data for orjson with OPT_SERIALIZE_NUMPY. Raises UnicodeDecodeError for BYTES that are no text."""
    if datatype == "BYTES":
        return texts(array)
    return array.reshape(-1) if datatype != "BF16" else bf16_rounded(array.reshape(-1))


def texts(array: np.ndarray) -> list[str]:
    """The elements of a BYTES tensor, flat. Raises UnicodeDecodeError for those that are no text."""
    elements: list[Any] = array.tolist() if array.ndim == 1 else array.ravel().tolist()
    return elements if {*map(type, elements)} == _ONLY_STR else [as_text(element) for element in elements]


_ONLY_STR = {str}


def as_text(element: Any) -> str:
    return element.decode() if isinstance(element, bytes) else str(element)


def _encoded(element: Any) -> bytes:
    return element if isinstance(element, bytes) else str(element).encode()
