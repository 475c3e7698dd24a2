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


def test_the_best_classes_are_told_with_index_and_label() -> None:
    signature = Signature((), (TensorSpec("p", "FP32", (-1, 3)),), ("a", "b:c", "d"))
    rows = np.array([[0.1, 0.7, 0.2], [np.nan, -1.5, -np.inf], [0.5, 0.5, 0.5]], dtype=np.float32)
    _, chunks = build(asked(RequestedOutput("p", False, 2)), {"p": rows}, signature, "m", "1")
    (output,) = json.loads(b"".join(chunks))["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [3, 2])
    assert output["data"] == ["0.7:1:b:c", "0.2:2:d", "-1.5:1:b:c", "-inf:2:d", "0.5:0:a", "0.5:1:b:c"]
    header_bytes, chunks = build(asked(RequestedOutput("p", True, 9)), {"p": rows}, signature, "m", "1")
    result = InferResult.from_response_body(b"".join(chunks), header_length=header_bytes)
    assert result.as_numpy("p").shape == (3, 3)
    assert result.as_numpy("p")[0].tolist() == [b"0.7:1:b:c", b"0.2:2:d", b"0.1:0:a"]


def test_outputs_without_elements_are_told() -> None:
    outputs = {**OUTPUTS, "y": np.empty((2, 0), dtype=np.float32)}
    header_bytes, chunks = build(asked(RequestedOutput("y", True)), outputs, SIGNATURE, "m", "1")
    assert header_bytes == len(b"".join(chunks))
    assert json.loads(b"".join(chunks))["outputs"][0]["parameters"] == {"binary_data_size": 0}
    _, chunks = build(asked(RequestedOutput("y", False)), outputs, SIGNATURE, "m", "1")
    assert json.loads(b"".join(chunks))["outputs"][0]["data"] == []
