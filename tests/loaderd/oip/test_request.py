"""A request is what the signature wants, or it is refused with a sentence that says what is wrong."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loaderd.errors import InvalidInput
from loaderd.frameworks.base import Signature, TensorSpec
from loaderd.oip.request import RequestedOutput, parse

SIGNATURE = Signature(
    (TensorSpec("x", "FP32", (-1, 3)), TensorSpec("t", "BYTES", (-1,))),
    (TensorSpec("y", "FP32", (-1,)), TensorSpec("z", "BYTES", (-1,))),
)
X: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": [2, 3], "data": [1, 2, 3, 4, 5, 6]}
T: dict[str, Any] = {"name": "t", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]}


def request(**changes: Any) -> bytes:
    return json.dumps({"inputs": [X, T], **changes}).encode()


def refusal(body: bytes, header_bytes: int | None = None) -> str:
    with pytest.raises(InvalidInput) as refused:
        parse(body, header_bytes, SIGNATURE)
    return refused.value.message


def test_a_json_request_gives_its_inputs_in_the_signatures_types() -> None:
    parsed = parse(request(id="seven"), None, SIGNATURE)
    assert parsed.request_id == "seven"
    assert parsed.items == 2
    assert parsed.inputs["x"].dtype == np.float32
    assert parsed.inputs["x"].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert parsed.inputs["t"].tolist() == ["a", "b"]
    assert parsed.outputs == (RequestedOutput("y", False), RequestedOutput("z", False))


def test_binary_tensors_follow_the_json_in_the_inputs_order() -> None:
    x, t = np.arange(6, dtype="<f4"), b"\1\0\0\0a\2\0\0\0bc"
    described = [
        {"name": "t", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": len(t)}},
        {"name": "x", "datatype": "FP32", "shape": [2, 3], "parameters": {"binary_data_size": x.nbytes}},
    ]
    head = json.dumps({"inputs": described}).encode()
    parsed = parse(head + t + x.tobytes(), len(head), SIGNATURE)
    assert parsed.inputs["x"].ravel().tolist() == x.tolist()
    assert parsed.inputs["t"].tolist() == [b"a", b"bc"]


def test_outputs_can_be_chosen_one_by_one() -> None:
    wanted = [{"name": "z", "parameters": {"binary_data": True}}]
    assert parse(request(outputs=wanted), None, SIGNATURE).outputs == (RequestedOutput("z", True),)
    everything = {"binary_data_output": True}
    assert [o.binary for o in parse(request(parameters=everything), None, SIGNATURE).outputs] == [True, True]
    but_one = [{"name": "y", "parameters": {"binary_data": False}}, {"name": "z"}]
    parsed = parse(request(parameters=everything, outputs=but_one), None, SIGNATURE)
    assert [o.binary for o in parsed.outputs] == [False, True]


LABELLED = Signature(
    SIGNATURE.inputs, (TensorSpec("label", "BYTES", (-1,)), TensorSpec("probabilities", "FP32", (-1, 2))), ("no", "yes")
)


def test_the_best_classes_can_be_asked_for_where_there_are_labels() -> None:
    wanted = [{"name": "probabilities", "parameters": {"classification": 1, "binary_data": True}}, {"name": "label"}]
    parsed = parse(request(outputs=wanted), None, LABELLED)
    assert parsed.outputs == (RequestedOutput("probabilities", True, 1), RequestedOutput("label", False))
    for classes, sentence in ((-1, "it must not be negative"), ("2", "as a whole number; it is a string")):
        with pytest.raises(InvalidInput, match=sentence):
            parse(
                request(outputs=[{"name": "probabilities", "parameters": {"classification": classes}}]), None, LABELLED
            )
    with pytest.raises(InvalidInput, match='needs a number for each label; "probabilities" has them'):
        parse(request(outputs=[{"name": "label", "parameters": {"classification": 2}}]), None, LABELLED)


def test_a_request_may_have_a_priority_and_a_limit_of_its_own() -> None:
    parsed = parse(request(parameters={"priority": 1, "timeout": 1500, "tenant": "blue"}), None, SIGNATURE)
    assert (parsed.priority, parsed.timeout_seconds) == (1, 0.0015)
    parsed = parse(request(parameters={"timeout": 0}), None, SIGNATURE)
    assert (parsed.priority, parsed.timeout_seconds) == (0, None)


def test_signatures_may_take_turns() -> None:
    for _ in range(2):
        assert [output.name for output in parse(request(), None, SIGNATURE).outputs] == ["y", "z"]
        assert [output.name for output in parse(request(), None, LABELLED).outputs] == ["label", "probabilities"]


def test_text_in_a_column_counts_as_a_list_of_text() -> None:
    parsed = parse(request(inputs=[X, {**T, "shape": [2, 1]}]), None, SIGNATURE)
    assert parsed.inputs["t"].shape == (2,)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "The request's JSON cannot be read"),
        (b"[]", "The request must be a JSON object."),
        (b"{}", 'The request needs "inputs" as an array; it is missing.'),
        (request(inputs={}), 'The request needs "inputs" as an array; it is an object.'),
        (request(inputs=[1]), 'Each entry of "inputs" must be an object, not a whole number.'),
        (request(inputs=[{}]), 'Each entry of "inputs" needs "name" as a string; it is missing.'),
        (request(inputs=[X]), 'The request lacks the input "t".'),
        (request(inputs=[X, X]), 'Input "x" is given twice.'),
        (request(inputs=[{**X, "name": "q"}]), 'The model has no input "q"; it takes "x", "t".'),
        (request(inputs=[{**X, "datatype": "FP64"}]), 'Input "x" must be FP32, not FP64.'),
        (request(inputs=[{**X, "shape": "2"}]), 'Input "x" needs "shape" as an array; it is a string.'),
        (request(inputs=[{**X, "shape": [3, 2]}]), 'Input "x" must have the shape [-1, 3] (-1: any size), not [3, 2].'),
        (request(inputs=[{**X, "shape": [-2, 3]}]), 'Input "x" has the shape [-2, 3]; it needs at most 32 whole'),
        (request(inputs=[{**X, "shape": [True, 3]}]), 'Input "x" has the shape [True, 3]; it needs at most 32 whole'),
        (request(inputs=[{**X, "shape": [2**62, 3]}]), 'Input "x" has the shape'),
        (request(inputs=[{**X, "data": None}]), 'Input "x" needs its "data" as a JSON array.'),
        (
            request(inputs=[X, {**T, "shape": [1], "data": ["a"]}]),
            'The inputs must hold equally many items; they hold: "x" 2, "t" 1.',
        ),
        (
            request(inputs=[{**X, "shape": [0, 3], "data": []}, {**T, "shape": [0], "data": []}]),
            "The request holds no items",
        ),
        (request(outputs=[{"name": "q"}]), 'The model has no output "q"; it gives "y", "z".'),
        (request(outputs=["y"]), 'Each entry of "outputs" must be an object, not a string.'),
        (
            request(outputs=[{"name": "y", "parameters": {"classification": 2}}]),
            'Output "y" asks for "classification", which needs a number for each label; this model has none.',
        ),
        (request(outputs=[{"name": "y"}, {"name": "y"}]), 'Output "y" is asked for twice.'),
        (
            request(outputs=[{"name": "y", "parameters": {"shared_memory_region": "r"}}]),
            'Output "y" asks for shared memory, which is not offered',
        ),
        (request(parameters={"sequence_id": 3}), 'The parameter "sequence_id" is refused'),
        (request(parameters={"priority": "high"}), '"parameters" needs "priority" as a whole number; it is a string.'),
        (request(parameters={"timeout": True}), '"parameters" needs "timeout" as a whole number; it is a boolean.'),
        (request(parameters={"timeout": -1}), 'The parameters "priority" and "timeout" (microseconds) must not'),
        (request(parameters=[]), 'The request needs "parameters" as an object; it is an array.'),
        (request(id=7), 'The request needs "id" as a string; it is a whole number.'),
        (
            request(inputs=[{**X, "parameters": {"binary_data_size": 24}}]),
            'Input "x" announces 24 binary bytes and 0 are left in the body',
        ),
        (
            request(inputs=[{**X, "parameters": {"shared_memory_region": "r"}}]),
            'Input "x" asks for shared memory, which is not offered',
        ),
    ],
)
def test_it_says_what_is_wrong(body: bytes, sentence: str) -> None:
    assert refusal(body).startswith(sentence)


def test_it_refuses_a_json_length_beyond_the_body_and_bytes_too_many() -> None:
    body = request()
    assert refusal(body, len(body) + 1).startswith("Inference-Header-Content-Length is")
    assert refusal(body + b"more", len(body)) == "The body has 4 bytes more than its inputs announce."


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "name": st.sampled_from(["x", "t"]) | json_values,
            "datatype": st.sampled_from(["FP32", "BYTES"]) | json_values,
            "shape": st.lists(st.integers(-1, 4), max_size=3) | json_values,
            "data": json_values,
            "parameters": st.fixed_dictionaries({"binary_data_size": json_values}) | json_values,
        },
    ),
    st.binary(max_size=8),
)
def test_no_input_raises_anything_but_a_refusal(entry: dict[str, Any], binary: bytes) -> None:
    head = json.dumps({"inputs": [entry]}).encode()
    with pytest.raises(InvalidInput):
        parse(head + binary, len(head), SIGNATURE)
