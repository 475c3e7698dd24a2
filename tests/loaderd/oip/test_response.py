"""A response is read back by the real client."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tritonclient.http import InferResult

from loaderd.errors import InvalidInput
from loaderd.frameworks.base import Signature, TensorSpec
from loaderd.oip.request import InferRequest, RequestedOutput
from loaderd.oip.response import build

SIGNATURE = Signature(
    (TensorSpec("x", "FP32", (-1,)),),
    (TensorSpec("y", "FP32", (-1, 2)), TensorSpec("z", "BYTES", (-1,)), TensorSpec("n", "INT64", (-1,))),
)
OUTPUTS = {
    "y": np.array([[0.1, 2], [3, 4]], dtype=np.float32),
    "z": np.array(["ä", b"b"], dtype=object),
    "n": np.array([1, 2]),
}


def asked(*outputs: RequestedOutput, request_id: str | None = None) -> InferRequest:
    return InferRequest(request_id, {}, outputs, 2)


def test_a_json_response_carries_the_names_and_the_id() -> None:
    header_bytes, chunks = build(asked(RequestedOutput("y", False), request_id="7"), OUTPUTS, SIGNATURE, "m", "3")
    assert header_bytes is None
    assert json.loads(b"".join(chunks)) == {
        "model_name": "m",
        "model_version": "3",
        "id": "7",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [0.1, 2.0, 3.0, 4.0]}],
    }


def test_json_and_binary_outputs_mix() -> None:
    wanted = asked(RequestedOutput("n", False), RequestedOutput("z", True), RequestedOutput("y", True))
    header_bytes, chunks = build(wanted, OUTPUTS, SIGNATURE, "m", "1")
    result = InferResult.from_response_body(b"".join(chunks), header_length=header_bytes)
    assert result.as_numpy("n").tolist() == [1, 2]
    assert [element.decode() for element in result.as_numpy("z")] == ["ä", "b"]
    np.testing.assert_array_equal(result.as_numpy("y"), OUTPUTS["y"])


def test_numbers_that_json_does_not_know_become_null() -> None:
    outputs = {**OUTPUTS, "y": np.array([[np.nan, np.inf]], dtype=np.float32)}
    _, chunks = build(asked(RequestedOutput("y", False)), outputs, SIGNATURE, "m", "1")
    assert json.loads(b"".join(chunks))["outputs"][0]["data"] == [None, None]


def test_it_refuses_to_write_bytes_that_are_no_text_as_json() -> None:
    outputs = {**OUTPUTS, "z": np.array([b"\xff"], dtype=object)}
    with pytest.raises(InvalidInput, match='Output "z" holds bytes that are no text; ask for it with'):
        build(asked(RequestedOutput("z", False)), outputs, SIGNATURE, "m", "1")
