"""The plain form: {"inputs": [...]} is read by the signature, and answers read like answers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson
import pytest

from loaderd.errors import InvalidInput
from loaderd.frameworks.base import Signature, TensorSpec
from loaderd.worker import simple
from tests.loaderd.worker.framework import Classifier, Double, Entities, Pair

IMAGE = Signature((TensorSpec("image", "UINT8", (-1, 2, 2)),), (TensorSpec("y", "FP32", (-1,)),))


def parsed(signature: Signature, *inputs: Any) -> dict[str, np.ndarray]:
    return simple.parse(json.dumps({"inputs": inputs}).encode(), signature)


def said(signature: Signature, **outputs: Any) -> list[Any]:
    arrays = {name: np.array(value) for name, value in outputs.items()}
    plain: list[Any] = orjson.loads(
        orjson.dumps(simple.predictions(arrays, signature), option=orjson.OPT_SERIALIZE_NUMPY)
    )
    return plain


def test_texts_go_to_a_text_model() -> None:
    assert parsed(Classifier.signature, "a", "b")["text"].tolist() == ["a", "b"]


def test_rows_go_to_a_numeric_model() -> None:
    assert parsed(Double.signature, [1, 2], [3, 4.5])["x"].tolist() == [[1, 2], [3, 4.5]]
    assert parsed(IMAGE, [[1, 2], [3, 4]])["image"].shape == (1, 2, 2)


def test_objects_name_the_inputs_of_a_model_with_several() -> None:
    arrays = parsed(Pair.signature, {"a": 1, "b": [1, 2]}, {"a": 2.5, "b": [3, 4]})
    assert arrays["a"].tolist() == [1, 2.5]
    assert arrays["b"].tolist() == [[1, 2], [3, 4]]
    assert parsed(Classifier.signature, {"text": "a"}, "b")["text"].tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("signature", "inputs", "sentence"),
    [
        (Classifier.signature, [], 'The request needs "inputs": an array of at least one text.'),
        (Double.signature, [], 'The request needs "inputs": an array of at least one FP32 value of shape [-1].'),
        (Classifier.signature, ["a", 1], "Item 1 must be a text, not 1."),
        (Classifier.signature, [["a"]], 'Item 0 must be a text, not ["a"].'),
        (Classifier.signature, [{"txt": "a"}], 'Item 0 lacks "text"; each must be one text.'),
        (Pair.signature, [1], 'Item 0 must be one object with the keys "a", "b".'),
        (Double.signature, [1, 2], 'Input "x" must have the shape [-1, -1] (-1: any size), not [2].'),
        (Double.signature, [[1], [2, 3]], 'Input "x" is ragged'),
        (Double.signature, ["a"], 'Input "x" is FP32: its "data" must hold numbers only.'),
        (IMAGE, [[1, 2]], 'Input "image" must have the shape [-1, 2, 2]'),
    ],
)
def test_it_says_what_is_wrong(signature: Signature, inputs: list[Any], sentence: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parsed(signature, *inputs)
    assert refused.value.message.startswith(sentence)


def test_a_classifier_says_label_score_and_scores() -> None:
    answer = said(Classifier.signature, label=["positive"], probabilities=np.array([[0.2, 0.8]], dtype=np.float32))
    assert answer == [{"label": "positive", "score": 0.8, "scores": {"negative": 0.2, "positive": 0.8}}]


def test_a_classifier_without_probabilities_says_the_label() -> None:
    signature = Signature(Classifier.signature.inputs, Classifier.signature.outputs[:1])
    assert said(signature, label=["positive"]) == [{"label": "positive"}]


def test_a_classifier_that_answers_several_questions_says_a_list() -> None:
    signature = Signature(Double.signature.inputs, (TensorSpec("label", "BYTES", (-1, 2)),))
    assert said(signature, label=[["0", "1"], ["1", "1"]]) == [{"label": ["0", "1"]}, {"label": ["1", "1"]}]


def test_the_scores_of_a_decision_function_are_said() -> None:
    outputs = (TensorSpec("label", "BYTES", (-1,)), TensorSpec("scores", "FP64", (-1, 3)))
    three = Signature(Double.signature.inputs, outputs, ("a", "b", "c"))
    assert said(three, label=["b"], scores=[[-1.0, 2.0, 0.5]]) == [
        {"label": "b", "score": 2.0, "scores": {"a": -1.0, "b": 2.0, "c": 0.5}}
    ]
    two = Signature(Double.signature.inputs, outputs, ("no", "yes"))
    assert said(two, label=["no", "yes"], scores=[-1.5, 0.5]) == [
        {"label": "no", "score": 1.5, "scores": {"no": 1.5, "yes": -1.5}},
        {"label": "yes", "score": 0.5, "scores": {"no": -0.5, "yes": 0.5}},
    ]


def test_scores_of_pairs_of_classes_are_no_scores_of_labels() -> None:
    signature = Signature(Double.signature.inputs, Classifier.signature.outputs[:1], ("a", "b", "c", "d"))
    assert said(signature, label=["b"], scores=[[0.0] * 6]) == [{"label": "b"}]


def test_all_labels_that_apply_are_said() -> None:
    answer = said(Classifier.signature, label=["positive"], probabilities=[[0.75, 0.875]], labels=['["negative"]'])
    assert answer == [
        {"label": "positive", "score": 0.875, "scores": {"negative": 0.75, "positive": 0.875}, "labels": ["negative"]}
    ]


def test_a_classifier_without_a_label_output_takes_the_likeliest() -> None:
    signature = Signature(Classifier.signature.inputs, Classifier.signature.outputs[1:], ("no", "yes"))
    answer = said(signature, probabilities=[[0.25, 0.75]])
    assert answer == [{"label": "yes", "score": 0.75, "scores": {"no": 0.25, "yes": 0.75}}]


def test_one_output_is_said_as_it_is() -> None:
    assert said(Double.signature, y=[[1.0, 2.0]]) == [{"output": [1.0, 2.0]}]
    numbers = Signature(Double.signature.inputs, (TensorSpec("y", "FP32", (-1,)),))
    assert said(numbers, y=np.array([0.1], dtype=np.float32)) == [{"output": 0.1}]


def test_json_text_is_said_as_json_and_other_text_as_text() -> None:
    answer = said(Entities.signature, entities=['[{"word": "Ada"}]', "[no json", "plain"])
    assert answer == [{"output": [{"word": "Ada"}]}, {"output": "[no json"}, {"output": "plain"}]


def test_several_outputs_keep_their_names() -> None:
    assert said(Pair.signature, sum=[1.5], both=[[1, 2]]) == [{"outputs": {"sum": 1.5, "both": [1, 2]}}]


@pytest.mark.parametrize("model", [Classifier, Double, Entities, Pair])
def test_a_sample_in_plain_form_is_read_back_as_it_was(model: type) -> None:
    inputs = model().sample_input()
    plain = json.dumps(simple.sample(inputs, model.signature)).encode()
    for name, array in simple.parse(plain, model.signature).items():
        np.testing.assert_array_equal(array, inputs[name])


def test_a_row_of_categories_in_plain_form_is_a_list_of_texts() -> None:
    signature = Signature((TensorSpec("features", "BYTES", (-1, 2)),), (TensorSpec("y", "FP32", (-1,)),))
    inputs = {"features": np.array([["red", "1"]], dtype=object)}
    plain = simple.sample(inputs, signature)
    assert plain == {"inputs": [["red", "1"]]}
    read = simple.parse(json.dumps(plain).encode(), signature)
    np.testing.assert_array_equal(read["features"], inputs["features"])
