"""An inference response: JSON, or JSON followed by binary tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from loaderd.errors import InvalidInput
from loaderd.frameworks.base import Signature
from loaderd.oip import datatypes
from loaderd.oip.request import InferRequest

Chunks = list[bytes | memoryview]


def build(
    request: InferRequest, outputs: Mapping[str, np.ndarray], signature: Signature, name: str, version: str
) -> tuple[int | None, Chunks]:
    """(length of the JSON part, or None when it is all JSON; the body in pieces).

    name: as the client called the model. NaN and infinities become null in JSON; binary outputs keep
    them. Raises InvalidInput when bytes that are no text are wanted as JSON.
    """
    described: list[dict[str, Any]] = []
    document: dict[str, Any] = {"model_name": name, "model_version": version, "outputs": described}
    if request.request_id is not None:  # last, where the cache of answers looks for it
        document["id"] = request.request_id
    datatype_of = _datatypes if _signature is signature else _known(signature)
    binary: Chunks = []
    for wanted in request.outputs:
        output = wanted.name
        array, datatype = outputs[output], datatype_of[output]
        if wanted.classification:
            array, datatype = classified(array, signature.labels or (), wanted.classification), "BYTES"
        if wanted.binary:
            raw = datatypes.to_binary(array, datatype)
            size = {"binary_data_size": len(raw)}
            described.append({"name": output, "datatype": datatype, "shape": array.shape, "parameters": size})
            binary.append(raw)
        else:
            data = _json_data(output, array, datatype)
            described.append({"name": output, "datatype": datatype, "shape": array.shape, "data": data})
    head = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return (len(head), [head, *binary]) if binary else (None, [head])


_signature = Signature((), ())
_datatypes: dict[str, str] = {}


def _known(signature: Signature) -> dict[str, str]:
    """The datatypes of its outputs. A process serves one model: those of the newest signature are kept."""
    global _signature, _datatypes
    _signature, _datatypes = signature, {spec.name: spec.datatype for spec in signature.outputs}
    return _datatypes


def _json_data(name: str, array: np.ndarray, datatype: str) -> Any:
    try:
        return datatypes.to_json(array, datatype)
    except UnicodeDecodeError:
        raise InvalidInput(
            f'Output "{name}" holds bytes that are no text; ask for it with the parameter "binary_data": true.',
            output=name,
        ) from None


def classified(rows: np.ndarray, labels: tuple[str, ...], classes: int) -> np.ndarray:
    """The best `classes` of each row as "value:index:label", best first; what is no number comes last."""
    best = np.argsort(-rows, axis=1, kind="stable")[:, :classes]
    told = np.empty(best.shape, dtype=object)
    for at, row in enumerate(best.tolist()):
        values = rows[at]
        told[at] = [f"{values[index]!s}:{index}:{labels[index]}" for index in row]
    return told
