"""The pieces that all frameworks share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loaderd.errors import InvalidInput, LoadFailed
from loaderd.frameworks.base import Artifact, Signature, TensorSpec
from loaderd.frameworks.inputs import checked, sample, texts
from loaderd.frameworks.labels import classified, declared_labels

PAIR = Signature((TensorSpec("age", "INT64", (-1,)), TensorSpec("image", "FP32", (-1, -1, 3))), ())


def artifact(**options: Any) -> Artifact:
    return Artifact("m-v1", Path("/nowhere"), "pickle", (), approved=False, **options)


def test_integers_pass_as_floats_and_not_the_other_way() -> None:
    image = np.zeros((2, 4, 3), dtype="int32")
    arrays = checked({"age": np.array([1, 2], dtype="int32"), "image": image}, PAIR)
    assert (arrays["age"].dtype, arrays["image"].dtype) == ("int64", "float32")
    with pytest.raises(InvalidInput, match="'age' must be INT64; the request has FP64"):
        checked({"age": np.array([1.5, 2.0]), "image": image}, PAIR)


def test_inputs_of_different_length_are_refused() -> None:
    with pytest.raises(InvalidInput, match="same number of items"):
        checked({"age": np.array([1]), "image": np.zeros((2, 4, 3))}, PAIR)


TEXT = Signature((TensorSpec("text", "BYTES", (-1,)),), ())
TABLE = Signature((TensorSpec("features", "BYTES", (-1, 2)),), ())


def test_texts_that_are_str_already_are_not_copied() -> None:
    given = np.array(["one", "zwei", ""], dtype=object)
    assert checked({"text": given}, TEXT)["text"] is given
    assert texts({"text": given}, TEXT) == ["one", "zwei", ""]


@pytest.mark.parametrize(
    "given",
    [
        np.array(["grün", "x"]),
        np.array([b"gr\xc3\xbcn", b"x"], dtype=object),
        np.array([b"gr\xc3\xbcn", "x"], dtype=object),
        np.array(["grün".encode(), b"x"]),
    ],
    ids=["numpy's text", "bytes", "both", "numpy's bytes"],
)
def test_texts_come_as_text_or_as_utf_8(given: np.ndarray) -> None:
    assert texts({"text": given}, TEXT) == ["grün", "x"]
    array = checked({"text": given}, TEXT)["text"]
    assert array.dtype == object
    assert {*map(type, array)} == {str}


def test_a_table_of_texts_keeps_its_shape() -> None:
    for given in (np.array([["a", "b"], ["c", "d"]], dtype=object), np.array([[b"a", b"b"], [b"c", b"d"]])):
        assert checked({"features": given}, TABLE)["features"].tolist() == [["a", "b"], ["c", "d"]]


def test_what_is_no_text_is_named_by_its_place() -> None:
    with pytest.raises(InvalidInput, match="Item 1 of input 'text' is not UTF-8"):
        checked({"text": np.array([b"fine", b"\xff"], dtype=object)}, TEXT)
    with pytest.raises(InvalidInput, match="Item 2 of input 'text' must be text, not int"):
        checked({"text": np.array(["fine", b"too", 3], dtype=object)}, TEXT)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "The model takes 'text'; the request has no input"),
        ({"words": np.array(["a"])}, "The model takes 'text'; the request has 'words'"),
        ({"text": np.array([], dtype=object)}, "The batch is empty"),
        ({"text": np.array([["a"]])}, r"has the shape \[1, 1\]; the model takes \[-1\]"),
    ],
)
def test_a_request_that_names_something_else_or_nothing_is_refused(given: Any, sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        checked(given, TEXT)


def test_a_made_up_sample_fits_open_dimensions() -> None:
    made = sample(PAIR, {})
    assert {name: values.shape for name, values in made.items()} == {"age": (1,), "image": (1, 8, 3)}
    assert checked(made, PAIR).keys() == made.keys()


def test_a_declared_sample_names_several_inputs_by_object() -> None:
    declared = {"sample_input": [{"age": 41, "image": [[0.0, 0.5, 1.0]]}]}
    assert sample(PAIR, declared)["age"].tolist() == [41]
    with pytest.raises(LoadFailed, match=r"sample_input in metadata.json does not fit"):
        sample(PAIR, {"sample_input": [{"age": 41}]})


@pytest.mark.parametrize(
    "options",
    [
        {"metadata": {"labels": ["no", "yes"]}},
        {"config": {"labels": ["no", "yes"]}},
        {"metadata": {"labels": {"1": "yes", "0": "no"}}, "config": {"labels": ["other", "names"]}},
    ],
)
def test_labels_come_from_metadata_then_config(options: dict[str, Any]) -> None:
    assert declared_labels(artifact(**options), 2) == ("no", "yes")


def test_labels_that_do_not_match_the_classes_stop_the_load() -> None:
    assert declared_labels(artifact()) is None
    with pytest.raises(LoadFailed, match="m-v1 has 3 classes and its metadata names 2 labels"):
        declared_labels(artifact(metadata={"labels": ["no", "yes"]}), 3)


def test_several_labels_are_those_from_one_half_on() -> None:
    outputs = classified(np.array([[0.9, 0.5, 0.1], [0.2, 0.1, 0.3]]), ("a", "b", "c"), several=True)
    assert outputs["label"].tolist() == ["a", "c"]
    assert [json.loads(labels) for labels in outputs["labels"]] == [["a", "b"], []]
