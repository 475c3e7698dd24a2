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
    specs = {spec.name: spec for spec in signature.outputs}
    described: list[dict[str, Any]] = []
    binary: Chunks = []
    for wanted in request.outputs:
        datatype = specs[wanted.name].datatype
        array = outputs[wanted.name]
        entry: dict[str, Any] = {"name": wanted.name, "datatype": datatype, "shape": array.shape}
        if wanted.binary:
            raw = datatypes.to_binary(array, datatype)
            entry["parameters"] = {"binary_data_size": len(raw)}
            binary.append(raw)
        else:
            entry["data"] = _json_data(wanted.name, array, datatype)
        described.append(entry)
    document: dict[str, Any] = {"model_name": name, "model_version": version, "outputs": described}
    if request.request_id is not None:
        document["id"] = request.request_id
    head = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return (len(head), [head, *binary]) if binary else (None, [head])


def _json_data(name: str, array: np.ndarray, datatype: str) -> Any:
    try:
        return datatypes.to_json(array, datatype)
    except UnicodeDecodeError:
        raise InvalidInput(
            f'Output "{name}" holds bytes that are no text; ask for it with the parameter "binary_data": true.',
            output=name,
        ) from None
