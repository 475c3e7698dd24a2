"""What a model may be asked: checks against the signature, text, and a sample that fits it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from loaderd.errors import InvalidInput, LoadFailed
from loaderd.frameworks.base import Signature, TensorSpec

if TYPE_CHECKING:
    import numpy as np

    from loaderd.frameworks.base import Batch

DTYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "object",
}
"""Open Inference Protocol datatype -> numpy dtype."""

DATATYPES = {dtype: datatype for datatype, dtype in DTYPES.items()}

SAMPLE_TEXT = "A short text to try the model with."
SAMPLE_LENGTH = 8  # of a dimension that may have any size


def checked(inputs: Batch, signature: Signature) -> dict[str, np.ndarray]:
    """The inputs as arrays of the signature's dtypes. BYTES become object arrays of `str`.

    Raises InvalidInput for missing or unknown names, wrong types or shapes, unequal batch sizes, an empty
    batch and text that is not UTF-8.
    """
    specs = signature.inputs
    if len(inputs) != len(specs) or any(spec.name not in inputs for spec in specs):
        wanted = _listed({spec.name for spec in specs})
        raise InvalidInput(f"The model takes {wanted}; the request has {_listed(set(inputs)) or 'no input'}.")
    arrays = {spec.name: _fitting(inputs[spec.name], spec) for spec in specs}
    sizes = {len(array) for array in arrays.values()}
    if len(sizes) > 1:
        by_name = {name: len(array) for name, array in arrays.items()}
        raise InvalidInput(f"All inputs need the same number of items; the request has {by_name}.")
    if 0 in sizes:
        raise InvalidInput("The batch is empty; send at least one item.")
    return arrays


def texts(inputs: Batch, signature: Signature) -> list[str]:
    """The items of a model whose one input is text; raises InvalidInput as `checked` does."""
    items: list[str] = checked(inputs, signature)[signature.inputs[0].name].tolist()
    return items


def sample(signature: Signature, metadata: Mapping[str, Any], text: str = SAMPLE_TEXT) -> dict[str, np.ndarray]:
    """A batch of one: the first item of metadata["sample_input"] (a list, or {"inputs": list}), else made up.

    An item is a text, a row, or for several inputs an object of them by name. Raises LoadFailed when the
    metadata's sample does not fit the signature.
    """
    declared = metadata.get("sample_input")
    if isinstance(declared, Mapping):
        declared = declared.get("inputs")
    if not declared:
        return {spec.name: _made_up(spec, text) for spec in signature.inputs}
    item = declared[0] if isinstance(declared, list) else declared
    by_name = item if isinstance(item, Mapping) else {signature.inputs[0].name: item}
    try:
        return checked({name: _batch_of_one(value, signature) for name, value in by_name.items()}, signature)
    except (InvalidInput, ValueError, TypeError) as error:
        raise LoadFailed(f"The sample_input in metadata.json does not fit the model: {error}") from error


def _listed(names: set[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names))


def _fitting(values: Any, spec: TensorSpec) -> np.ndarray:
    import numpy as np

    array = np.asarray(values)
    if not _has_shape(array, spec.shape):
        raise InvalidInput(
            f"Input {spec.name!r} has the shape {list(array.shape)}; the model takes {list(spec.shape)} "
            "(the first dimension counts the items)."
        )
    if spec.datatype == "BYTES":
        return _decoded(array, spec.name)
    try:
        return array.astype(DTYPES[spec.datatype], casting="same_kind", copy=False)
    except (TypeError, ValueError):
        got = DATATYPES.get(str(array.dtype), "text or mixed values")
        raise InvalidInput(f"Input {spec.name!r} must be {spec.datatype}; the request has {got}.") from None


def _has_shape(array: np.ndarray, shape: tuple[int, ...]) -> bool:
    if array.ndim != len(shape):
        return False
    return all(want in (-1, got) for want, got in zip(shape[1:], array.shape[1:], strict=True))


_ONLY_STR = {str}
_ONLY_BYTES = {bytes}


def _decoded(array: np.ndarray, name: str) -> np.ndarray:
    """The array itself when it holds `str` only."""
    import numpy as np

    values = array.ravel().tolist()
    types = {*map(type, values)}
    if types == _ONLY_STR and array.dtype == object:
        return array
    decoded = np.empty(array.shape, dtype=object)
    if types <= _ONLY_STR or types == _ONLY_BYTES:
        with contextlib.suppress(UnicodeDecodeError):  # the loop tells which
            decoded.ravel()[:] = values if types <= _ONLY_STR else [value.decode() for value in values]
            return decoded
    for place, value in np.ndenumerate(array):
        if isinstance(value, bytes):
            try:
                value = value.decode()
            except UnicodeDecodeError as error:
                raise InvalidInput(f"Item {place[0]} of input {name!r} is not UTF-8: {error}.") from None
        if not isinstance(value, str):
            raise InvalidInput(f"Item {place[0]} of input {name!r} must be text, not {type(value).__name__}.")
        decoded[place] = value
    return decoded


def _batch_of_one(value: Any, signature: Signature) -> np.ndarray:
    import numpy as np

    categories = any(spec.datatype == "BYTES" for spec in signature.inputs)
    return np.asarray([value], dtype=object if categories else None)


def _made_up(spec: TensorSpec, text: str) -> np.ndarray:
    import numpy as np

    shape = (1, *(SAMPLE_LENGTH if size == -1 else size for size in spec.shape[1:]))
    return np.full(shape, text if spec.datatype == "BYTES" else 0, dtype=DTYPES[spec.datatype])
