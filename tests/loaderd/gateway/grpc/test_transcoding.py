"""gRPC's messages and those of the model processes say the same, without a copy of the tensors."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaderd import wire
from loaderd.errors import InvalidInput, PredictionFailed
from loaderd.frameworks.base import Signature, TensorSpec
from loaderd.gateway.grpc import transcoding
from loaderd.gateway.grpc.messages import message_class
from loaderd.oip import request as oip_request

Request, Response = message_class("ModelInferRequest"), message_class("ModelInferResponse")


def read(**fields: Any) -> transcoding.Asked:
    return transcoding.read(Request(**fields).SerializeToString())


def document(asked: transcoding.Asked) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(asked.pieces[0])
    return told


def tensor(datatype: str, shape: list[int], **contents: Any) -> dict[str, Any]:
    entry = {"name": "x", "datatype": datatype, "shape": shape}
    return {**entry, "contents": contents} if contents else entry


def understood(asked: transcoding.Asked, datatype: str, rank: int = 1) -> np.ndarray:
    """What a model process makes of it."""
    signature = Signature((TensorSpec("x", datatype, (-1,) * rank),), (TensorSpec("y", datatype, (-1,)),))
    return oip_request.parse(b"".join(asked.pieces), asked.head["header_bytes"], signature).inputs["x"]


def test_raw_tensors_are_views_of_the_message() -> None:
    x = np.arange(6, dtype="<f4")
    message = Request(
        model_name="m", inputs=[tensor("FP32", [6])], raw_input_contents=[x.tobytes()]
    ).SerializeToString()
    asked = transcoding.read(message)
    assert isinstance(asked.pieces[1], memoryview)
    assert asked.pieces[1].obj is message
    np.testing.assert_array_equal(understood(asked, "FP32"), x)


def test_names_ids_parameters_and_outputs_are_kept() -> None:
    asked = read(
        model_name="m",
        model_version="2",
        id="seven",
        parameters={
            "priority": {"uint64_param": 3},
            "share": {"double_param": 0.5},
            "tenant": {"string_param": "blue"},
            "timeout": {"int64_param": 5},
            "is": {"bool_param": False},
            "nothing": {},
        },
        inputs=[tensor("INT32", [1], int_contents=[1])],
        outputs=[{"name": "y", "parameters": {"classification": {"int64_param": 2}}}],
    )
    assert (asked.name, asked.version, asked.request_id) == ("m", "2", "seven")
    assert asked.head == {"name": "m", "header_bytes": len(asked.pieces[0])}
    assert document(asked) == {
        "id": "seven",
        "parameters": {
            "priority": 3,
            "share": 0.5,
            "tenant": "blue",
            "timeout": 5,
            "is": False,
            "binary_data_output": True,
        },
        "inputs": [{"name": "x", "datatype": "INT32", "shape": [1], "parameters": {"binary_data_size": 4}}],
        "outputs": [{"name": "y", "parameters": {"classification": 2, "binary_data": True}}],
    }
    plain = read(model_name="m", inputs=[tensor("INT32", [1], int_contents=[1])])
    assert (plain.version, plain.request_id) == (None, "")
    assert document(plain).keys() == {"parameters", "inputs"}


@pytest.mark.parametrize(
    ("datatype", "field", "values"),
    [
        ("BOOL", "bool_contents", [True, False]),
        ("INT8", "int_contents", [-128, 127]),
        ("INT16", "int_contents", [-(2**15), 2**15 - 1]),
        ("INT32", "int_contents", [-(2**31), 2**31 - 1]),
        ("INT64", "int64_contents", [-(2**63), 2**63 - 1]),
        ("UINT8", "uint_contents", [0, 255]),
        ("UINT16", "uint_contents", [0, 65535]),
        ("UINT32", "uint_contents", [0, 2**32 - 1]),
        ("UINT64", "uint64_contents", [0, 2**64 - 1]),
        ("FP32", "fp32_contents", [0.5, -2.5]),
        ("FP64", "fp64_contents", [0.1, 5e-324]),
        ("BYTES", "bytes_contents", ["ä".encode(), b""]),
    ],
)
def test_typed_contents_are_packed(datatype: str, field: str, values: list[Any]) -> None:
    asked = read(model_name="m", inputs=[tensor(datatype, [2], **{field: values})])
    assert understood(asked, datatype).tolist() == values


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"inputs": [tensor("INT8", [1], int_contents=[128])]}, r'"x" holds 128, outside INT8 \(-128 to 127\)'),
        ({"inputs": [tensor("UINT16", [1], uint_contents=[70000])]}, '"x" holds 70000, outside UINT16'),
        ({"inputs": [tensor("FP16", [1], fp32_contents=[1])]}, "FP16, which travels in raw_input_contents only"),
        ({"inputs": [tensor("FP32", [1], fp64_contents=[1])]}, "belong into fp32_contents.*not into fp64_contents"),
        ({"inputs": [tensor("STRING", [1])]}, 'has the datatype "STRING"; there are BOOL'),
        ({"inputs": [tensor("FP32", [1])], "raw_input_contents": [b"1234", b""]}, "1 inputs and 2 raw_input_contents"),
        (
            {"inputs": [tensor("FP32", [1], fp32_contents=[1])], "raw_input_contents": [b"1234"]},
            "in contents and in raw_input_contents",
        ),
        (
            {"inputs": [{**tensor("FP32", [1]), "parameters": {"shared_memory_region": {"string_param": "r"}}}]},
            "asks for shared memory",
        ),
    ],
)
def test_what_does_not_fit_is_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        read(model_name="m", **fields)


@pytest.mark.parametrize(
    "message", [b"\x3a\x05abc", b"\x0f", b"\x3a", b"\x08" + b"\xff" * 11, b"\x09123", b"\x0a\x01\xff"]
)
def test_broken_messages_are_refused(message: bytes) -> None:
    with pytest.raises(InvalidInput, match="no ModelInferRequest"):
        transcoding.read(message)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(message: bytes) -> None:
    try:
        asked = transcoding.read(message)
    except InvalidInput:
        return
    assert asked.head["header_bytes"] == len(asked.pieces[0])


@given(
    st.lists(st.binary(max_size=300), max_size=4),
    st.sampled_from([b"", b"\x48\x96\x01", b"\xa2\x06\x03abc", b"\x4d1234", b"\x4912345678"]),
    st.randoms(use_true_random=False),
)
def test_fields_may_come_in_any_order(raw: list[bytes], unknown: bytes, random: Any) -> None:
    inputs = [{**tensor("UINT8", [len(data)]), "name": f"x{number}"} for number, data in enumerate(raw)]
    parts = [Request(raw_input_contents=[data]).SerializeToString() for data in raw]
    others = [Request(inputs=[entry]).SerializeToString() for entry in inputs]
    # What repeats keeps its order; the rest may stand anywhere between.
    order = [0] * len(parts) + [1] * len(others)
    random.shuffle(order)
    message = Request(model_name="m").SerializeToString() + unknown
    queues = [parts, others]
    message += b"".join(queues[which].pop(0) for which in order)
    asked = transcoding.read(message)
    assert [entry["name"] for entry in document(asked)["inputs"]] == [entry["name"] for entry in inputs]
    assert b"".join(asked.pieces[1:]) == b"".join(raw)


def answer(outputs: list[dict[str, Any]], *tensors: bytes, **fields: Any) -> wire.Message:
    text = json.dumps({"model_name": "m", "model_version": "1", "outputs": outputs, **fields}).encode()
    return wire.Message(1, wire.Kind.ANSWER, b"%d" % len(text), text + b"".join(tensors))


def output(name: str, datatype: str, shape: list[int], size: int, **parameters: Any) -> dict[str, Any]:
    return {
        "name": name,
        "datatype": datatype,
        "shape": shape,
        "parameters": {"binary_data_size": size, **parameters},
    }


def test_an_answer_keeps_its_tensors_names_and_parameters() -> None:
    outputs = [output("y", "FP32", [2], 8, scale=0.5), output("z", "BYTES", [0], 0), output("w", "UINT8", [300], 300)]
    told = answer(outputs, b"12345678", bytes(300), id="seven", parameters={"warm": True, "n": 3, "who": "me"})
    response = Response.FromString(b"".join(transcoding.write(told, {transcoding.FINAL_PARAMETER: True})))
    assert (response.model_name, response.model_version, response.id) == ("m", "1", "seven")
    assert [(out.name, out.datatype, list(out.shape)) for out in response.outputs] == [
        ("y", "FP32", [2]),
        ("z", "BYTES", [0]),
        ("w", "UINT8", [300]),
    ]
    assert list(response.raw_output_contents) == [b"12345678", b"", bytes(300)]
    assert response.outputs[0].parameters["scale"].double_param == 0.5
    assert response.parameters["warm"].bool_param
    assert response.parameters["n"].int64_param == 3
    assert response.parameters["who"].string_param == "me"
    assert response.parameters["triton_final_response"].bool_param


def test_an_embedded_message_is_read_as_a_field() -> None:
    stream = message_class("ModelStreamInferResponse")
    pieces = transcoding.write(answer([output("y", "UINT8", [200], 200)], bytes(200)))
    read = stream.FromString(b"".join(transcoding.embedded(2, pieces)))
    assert list(read.infer_response.raw_output_contents) == [bytes(200)]


def test_an_answer_that_no_message_can_hold_is_refused() -> None:
    size = transcoding.MAX_MESSAGE_BYTES
    with pytest.raises(transcoding.AnswerTooLarge, match="ask for fewer outputs"):
        transcoding.write(answer([output("y", "UINT8", [size], size)], bytes(size)))


def test_an_answer_without_binary_tensors_is_a_failure() -> None:
    with pytest.raises(PredictionFailed, match="without binary tensors"):
        transcoding.write(wire.Message(1, wire.Kind.ANSWER, b"", b"{}"))
