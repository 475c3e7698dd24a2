from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from benchmarks.binary_tensors import LENGTH, by_binary_tensors, is_binary, outputs_of
from benchmarks.driving import Answer, Call
from loaderd.frameworks.base import Signature, TensorSpec
from loaderd.oip import request, response

OUTPUTS = (TensorSpec("label", "BYTES", (-1,)), TensorSpec("p", "FP32", (-1, 2)))
VALUES = {
    "label": np.array(["ä", "", "no"], dtype=object),
    "p": np.array([[0.1, 0.9], [1e-7, 3.0], [-0.0, 2.5]], dtype=np.float32),
}


@pytest.mark.parametrize(
    ("datatype", "shape", "data"),
    [
        ("FP32", [3, 2], [0.1, 1e30, -2.5, 0, 7, 1 / 3]),
        ("FP64", [3, 1], [0.1, 1 / 3, -1e300]),
        ("BYTES", [3], ["a\nb", "", "größer\t\x00"]),
    ],
)
def test_the_server_reads_the_same_from_a_request_in_both_forms(datatype: str, shape: list[int], data: Any) -> None:
    signature = Signature((TensorSpec("x", datatype, (-1, *shape[1:])),), OUTPUTS)
    call = Call.of("/m", {"inputs": [{"name": "x", "datatype": datatype, "shape": shape, "data": data}]})
    raw = by_binary_tensors(call)
    assert raw.path == "/m"
    header = json.loads(raw.body[: _length(raw)])
    assert "data" not in header["inputs"][0]
    as_json = request.parse(call.body, None, signature)
    as_binary = request.parse(raw.body, _length(raw), signature)
    given = as_binary.inputs["x"]
    if datatype == "BYTES":
        given = np.array([each.decode() for each in given], dtype=object)
    np.testing.assert_array_equal(given, as_json.inputs["x"])
    assert given.dtype == as_json.inputs["x"].dtype
    assert [output.binary for output in as_binary.outputs] == [True, True]
    assert [output.binary for output in as_json.outputs] == [False, False]


@pytest.mark.parametrize("wants_binary", [True, False])
def test_what_the_server_answers_is_read_in_both_forms(wants_binary: bool) -> None:
    signature = Signature((TensorSpec("x", "FP32", (-1,)),), OUTPUTS)
    wanted = tuple(request.RequestedOutput(name, wants_binary) for name in VALUES)
    asked = request.InferRequest(None, {}, wanted, 3)
    length, pieces = response.build(asked, VALUES, signature, "m", "1.0")
    answer = Answer(200, {} if length is None else {LENGTH.lower(): str(length)}, b"".join(pieces))
    assert is_binary(answer) == wants_binary
    found = outputs_of(answer)
    assert found.keys() == VALUES.keys()
    for name, values in VALUES.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype


def test_an_answer_with_one_output_in_the_json_is_not_binary() -> None:
    outputs = [{"name": "a", "parameters": {"binary_data_size": 0}}, {"name": "b", "data": []}]
    body = json.dumps({"outputs": outputs}).encode()
    assert not is_binary(Answer(200, {LENGTH.lower(): str(len(body))}, body))


def _length(call: Call) -> int:
    return int(dict(call.headers)[LENGTH])
