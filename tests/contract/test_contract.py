"""What every framework promises, on every kind of model that it serves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from loaderd import catalogue
from loaderd.errors import ArtifactRefused, InvalidInput
from loaderd.frameworks.base import TOKENS, LoadedModel
from loaderd.frameworks.inputs import DTYPES
from tests.contract.cases import Case, artifact_of, batch, cases, listed_files, load


@cases()
def test_its_files_tell_framework_and_format(case: Case, directory_of: Callable[[Case], Path]) -> None:
    artifact = artifact_of(case, directory_of(case))
    found = catalogue.detect(listed_files(artifact.directory), artifact.config)
    assert found is not None
    assert (found[0].name, found[1].name) == (case.framework, case.format)
    assert found[1] in found[0].formats


@cases()
def test_its_signature_says_what_it_answers(case: Case, model: LoadedModel) -> None:
    described = {spec.name: (spec.datatype, spec.shape[1:]) for spec in model.signature.outputs}
    assert described == case.outputs
    assert model.signature.labels == case.labels
    assert all(spec.shape[0] == -1 for spec in (*model.signature.inputs, *model.signature.outputs))


@cases()
@pytest.mark.parametrize("size", [1, 3, 17])
def test_answers_have_the_types_and_shapes_of_the_signature(case: Case, model: LoadedModel, size: int) -> None:
    outputs = model.predict(batch(case.items[:size], model.signature))
    assert [name for name in outputs if name != TOKENS] == [spec.name for spec in model.signature.outputs]
    for spec in model.signature.outputs:
        assert outputs[spec.name].dtype == DTYPES[spec.datatype]
        assert outputs[spec.name].shape == (size, *spec.shape[1:])
        if spec.datatype == "BYTES":
            assert all(isinstance(value, str | bytes) for value in outputs[spec.name].ravel())


@cases()
def test_a_batch_answers_as_its_items_do_alone(case: Case, model: LoadedModel) -> None:
    together = model.predict(batch(case.items, model.signature))
    for at, item in enumerate(case.items):
        alone = model.predict(batch([item], model.signature))
        for name, values in alone.items():
            same(together[name][at], values[0])


def same(one: np.ndarray | str, other: np.ndarray | str) -> None:
    """Equal, but for the rounding of floats, also within JSON."""
    if isinstance(one, str) and one[:1] == "[":
        for left, right in zip(json.loads(one), json.loads(str(other)), strict=True):
            nearly = {"score": pytest.approx(right["score"], abs=1e-4)} if isinstance(right, dict) else {}
            assert left == (right | nearly if nearly else right)
    elif isinstance(one, str):
        assert one == other
    else:
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@cases()
def test_equal_questions_get_equal_answers(case: Case, model: LoadedModel) -> None:
    asked = batch(case.items[:3], model.signature)
    first, second = model.predict(asked), model.predict(asked)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


@cases(where=lambda case: "probabilities" in case.outputs)
def test_labels_are_those_of_the_likeliest_class(case: Case, model: LoadedModel) -> None:
    outputs = model.predict(batch(case.items, model.signature))
    assert case.labels is not None
    assert [case.labels[at] for at in outputs["probabilities"].argmax(axis=1)] == list(outputs["label"])
    if "labels" not in outputs:
        np.testing.assert_allclose(outputs["probabilities"].sum(axis=1), 1.0, atol=1e-5)


@cases()
def test_its_sample_is_a_batch_of_one_that_it_accepts(case: Case, model: LoadedModel) -> None:
    sample = model.sample_input()
    assert {name: len(values) for name, values in sample.items()} == {spec.name: 1 for spec in model.signature.inputs}
    model.predict(sample)
    model.warm_up()


@cases(where=lambda case: "sample_input" in case.metadata)
def test_a_declared_sample_is_used(case: Case, model: LoadedModel) -> None:
    declared = case.metadata["sample_input"]
    first = (declared["inputs"] if isinstance(declared, dict) else declared)[0]
    (values,) = model.sample_input().values()
    assert np.array_equal(values[0], np.asarray(first, dtype=values.dtype))


@cases(where=lambda case: isinstance(case.items[0], str))
def test_bytes_are_text_too(case: Case, model: LoadedModel) -> None:
    name = model.signature.inputs[0].name
    as_bytes = np.array([text.encode() for text in case.items[:3]], dtype=object)
    for output, values in model.predict({name: as_bytes}).items():
        np.testing.assert_array_equal(values, model.predict(batch(case.items[:3], model.signature))[output])
    with pytest.raises(InvalidInput, match=r"Item 1 .*UTF-8"):
        model.predict({name: np.array([b"good", b"\xff\xfe"], dtype=object)})


@cases()
def test_an_empty_batch_is_refused(case: Case, model: LoadedModel) -> None:
    nothing = {name: values[:0] for name, values in batch(case.items, model.signature).items()}
    with pytest.raises(InvalidInput, match="at least one item"):
        model.predict(nothing)


@cases()
def test_unknown_and_missing_inputs_are_named(case: Case, model: LoadedModel) -> None:
    asked = batch(case.items[:1], model.signature)
    name = model.signature.inputs[0].name
    with pytest.raises(InvalidInput, match=f"takes .*'{name}'.*'else'"):
        model.predict({"else": asked[name]})
    with pytest.raises(InvalidInput, match="no input"):
        model.predict({})


@cases()
def test_wrong_shapes_are_refused_with_the_right_one(case: Case, model: LoadedModel) -> None:
    asked = batch(case.items[:2], model.signature)
    name = model.signature.inputs[0].name
    with pytest.raises(InvalidInput, match=rf"{name}.*\[2, .*takes \[-1"):
        model.predict(asked | {name: np.stack([asked[name]] * 5, axis=-1)})


@cases()
def test_wrong_types_are_refused(case: Case, model: LoadedModel) -> None:
    asked = batch(case.items[:2], model.signature)
    spec = model.signature.inputs[0]
    wrong = np.full(asked[spec.name].shape, 1.5 if spec.datatype == "BYTES" else "text")
    with pytest.raises(InvalidInput, match=f"{spec.name}.* must be"):
        model.predict(asked | {spec.name: wrong})


@cases(where=lambda case: case.bad is not None)
def test_values_that_it_cannot_take_are_the_callers_fault(case: Case, model: LoadedModel) -> None:
    item, word = case.bad
    with pytest.raises(InvalidInput, match=word):
        model.predict(batch([case.items[0], item], model.signature))


@cases(where=lambda case: case.needs_approval)
def test_formats_that_run_code_need_approval(case: Case, directory_of: Callable[[Case], Path]) -> None:
    with pytest.raises(ArtifactRefused, match=f"manage.py approve {case.name}") as refused:
        load(artifact_of(case, directory_of(case), approved=False), case.framework)
    assert refused.value.facts["model_id"] == case.name
