"""The Open Inference Protocol's binary tensors, as Triton's client writes and reads them."""

from __future__ import annotations

import json

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput
from tritonclient.utils import triton_to_np_dtype

from benchmarks.driving import Answer, Call

LENGTH = "Inference-Header-Content-Length"


def by_binary_tensors(call: Call) -> Call:
    """The same request, a JSON one, with its inputs behind the JSON, that asks for all outputs in the same form."""
    inputs = []
    for entry in json.loads(call.body)["inputs"]:
        tensor = InferInput(entry["name"], entry["shape"], entry["datatype"])
        data = np.array(entry["data"], dtype=triton_to_np_dtype(entry["datatype"]))
        tensor.set_data_from_numpy(data.reshape(entry["shape"]), binary_data=True)
        inputs.append(tensor)
    body, json_bytes = InferenceServerClient.generate_request_body(inputs)
    return Call(call.path, body, (("Content-Type", "application/octet-stream"), (LENGTH, str(json_bytes))))


def outputs_of(answer: Answer) -> dict[str, np.ndarray]:
    """The outputs of an answer in either form; texts as `str`."""
    length = answer.headers.get(LENGTH.lower())
    result = InferenceServerClient.parse_response_body(
        answer.body, header_length=None if length is None else int(length)
    )
    return {output["name"]: _as_text(result.as_numpy(output["name"])) for output in result.get_response()["outputs"]}


def is_binary(answer: Answer) -> bool:
    """Whether every output stands behind the JSON."""
    length = answer.headers.get(LENGTH.lower())
    if length is None:
        return False
    return not any("data" in output for output in json.loads(answer.body[: int(length)])["outputs"])


def _as_text(array: np.ndarray) -> np.ndarray:
    if array.dtype != object:
        return array
    flat = [each.decode() if isinstance(each, bytes) else each for each in array.ravel()]
    return np.array(flat, dtype=object).reshape(array.shape)
