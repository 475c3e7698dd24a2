from typing import Any

import numpy as np
import pytest

from loaderd import protocol
from loaderd.errors import CanaryFailed
from loaderd.frameworks.base import LoadedModel, Signature, TensorSpec
from loaderd.worker.canary import MAX_VALUES, Canary
from tests.loaderd.worker.framework import Classifier, Double, Drifting, Entities, Pair
from tests.loaderd.worker.process import spec


class Fixed(LoadedModel):
    """Answers the arrays that it is given."""

    def __init__(self, **outputs: np.ndarray) -> None:
        self.outputs = outputs
        datatypes = {"O": "BYTES", "f": "FP32", "i": "INT64"}
        self.signature = Signature(
            (TensorSpec("x", "FP32", (-1,)),),
            tuple(
                TensorSpec(name, datatypes[array.dtype.kind], (-1, *array.shape[1:])) for name, array in outputs.items()
            ),
        )

    def predict(self, inputs: Any) -> dict[str, np.ndarray]:
        return self.outputs

    def sample_input(self) -> dict[str, np.ndarray]:
        return {"x": np.zeros(1, dtype=np.float32)}


def recorded_of(model: LoadedModel) -> dict[str, Any]:
    recorded: dict[str, Any] = Canary(spec(), model).at_load()["recorded"]
    return recorded


def reason_of(model: LoadedModel, canary: dict[str, Any]) -> str:
    """What differs at a load with this canary, "" when nothing does."""
    try:
        Canary(spec(canary=canary), model).at_load()
    except CanaryFailed as failed:
        difference: str = failed.facts["difference"]
        return difference.removeprefix("it answers its canary wrongly: ")
    return ""


@pytest.mark.parametrize("kind", [Classifier, Double, Entities, Pair])
def test_what_was_recorded_of_a_model_holds_for_it(kind: type[LoadedModel]) -> None:
    recorded = recorded_of(kind())
    assert recorded["reproducible"] is True
    assert reason_of(kind(), recorded) == ""


def test_the_error_says_how_a_right_answer_is_let_through() -> None:
    recorded = recorded_of(Fixed(y=np.array([[1.0]], dtype=np.float32)))
    with pytest.raises(CanaryFailed, match=rf"`manage.py forget_canary {spec().model_id}`\) and load it again\.$"):
        Canary(spec(canary=recorded), Fixed(y=np.array([[2.0]], dtype=np.float32))).at_load()


def test_of_a_large_output_a_bounded_part_is_kept_and_its_shape() -> None:
    recorded = recorded_of(Fixed(embedding=np.arange(1000, dtype=np.float32).reshape(1, 1000)))
    assert recorded["outputs"]["embedding"] == list(range(MAX_VALUES))
    assert recorded["shapes"] == {"embedding": [1, 1000]}
    assert reason_of(Fixed(embedding=np.zeros((1, 999), dtype=np.float32)), recorded).startswith(
        "embedding has the shape [1, 999], recorded [1, 1000]"
    )


def test_rounding_is_no_difference_and_a_wrong_weight_is() -> None:
    recorded = recorded_of(Fixed(y=np.array([[1.0, 0.0]], dtype=np.float32)))
    assert reason_of(Fixed(y=np.array([[1.0005, 0.00005]], dtype=np.float32)), recorded) == ""
    wrong = reason_of(Fixed(y=np.array([[1.1, 0.0]], dtype=np.float32)), recorded)
    assert wrong.startswith("y[0] is 1.1")
    assert wrong.endswith("recorded 1.0")


def test_not_a_number_equals_itself_only() -> None:
    odd = np.array([[np.nan, np.inf, -np.inf]], dtype=np.float32)
    recorded = recorded_of(Fixed(y=odd))
    assert recorded["outputs"] == {"y": ["NaN", "Infinity", "-Infinity"]}
    assert recorded["reproducible"] is True
    assert reason_of(Fixed(y=odd), recorded) == ""
    assert reason_of(Fixed(y=np.array([[1, np.inf, -np.inf]], dtype=np.float32)), recorded) == (
        'y[0] is 1.0, recorded "NaN"'
    )


def test_texts_that_are_json_are_compared_by_what_they_say() -> None:
    def entities(score: str, word: str = "Ada") -> Fixed:
        return Fixed(entities=np.array([f'[{{"word": "{word}", "score": {score}}}]'], dtype=object))

    recorded = recorded_of(entities("0.9"))
    assert reason_of(entities("0.90001"), recorded) == ""
    assert reason_of(entities("0.5"), recorded) == "entities[0][0].score is 0.5, recorded 0.9"
    assert reason_of(entities("0.9", "Bob"), recorded) == 'entities[0][0].word is "Bob", recorded "Ada"'


def test_a_very_long_text_is_only_asked_to_be_there() -> None:
    recorded = recorded_of(Fixed(text=np.array(["x" * 5000], dtype=object)))
    assert recorded["outputs"] == {"text": [None]}
    assert reason_of(Fixed(text=np.array(["else"], dtype=object)), recorded) == ""


def test_many_differences_are_told_in_short() -> None:
    recorded = recorded_of(Fixed(y=np.zeros((1, 10), dtype=np.float32)))
    assert reason_of(Fixed(y=np.ones((1, 10), dtype=np.float32)), recorded).endswith(" and 7 more")


@pytest.mark.parametrize(
    "text", ["lone \ud800", '{"n": 123456789012345678901234567890}'], ids=["surrogate", "number past 64 bits"]
)
def test_an_answer_that_json_cannot_say_is_a_failed_check(text: str) -> None:
    model = Fixed(text=np.array(["fine"], dtype=object))
    canary = Canary(spec(), model)
    canary.at_load()
    model.outputs = {"text": np.array([text], dtype=object)}
    check = canary.check()
    assert not check.ok
    assert check.fault is None
    assert check.reason
    protocol.encode(check.to_message())


def test_a_model_that_answers_otherwise_each_time_is_not_compared() -> None:
    recorded = recorded_of(Drifting())
    assert recorded["reproducible"] is False
    assert reason_of(Double(), recorded) == ""


def declared(*predictions: Any, inputs: Any = ("good!",), tolerance: float | None = None) -> dict[str, Any]:
    return {"source": "metadata", "inputs": list(inputs), "predictions": list(predictions), "tolerance": tolerance}


@pytest.mark.parametrize(
    "prediction",
    ["negative", {"label": "negative"}, {"score": 0.8}, {"scores": {"positive": 0.2}}],
    ids=["label", "object", "number", "nested"],
)
def test_a_declared_prediction_may_tell_a_part(prediction: Any) -> None:
    assert reason_of(Classifier(), declared(prediction)) == ""


@pytest.mark.parametrize(
    ("prediction", "reason"),
    [
        ("positive", 'prediction 0 is "negative", and metadata.json promises "positive"'),
        ({"label": "positive"}, 'prediction 0.label is "negative", and metadata.json promises "positive"'),
        ({"output": 1}, 'prediction 0 has no "output", and metadata.json promises {"output":1}'),
    ],
    ids=["label", "object", "key"],
)
def test_a_broken_promise_is_told(prediction: Any, reason: str) -> None:
    assert reason_of(Classifier(), declared(prediction)) == reason


def test_a_declared_tolerance_counts() -> None:
    assert reason_of(Classifier(), declared({"score": 0.7})) != ""
    assert reason_of(Classifier(), declared({"score": 0.7}, tolerance=0.2)) == ""


def test_values_of_a_model_with_one_output_need_no_object() -> None:
    assert reason_of(Double(), declared([2.0, 4.0], inputs=[[1.0, 2.0]])) == ""
    assert reason_of(Double(), declared([2.0], inputs=[[1.0, 2.0]])).startswith("prediction 0 is [2.0,4.0]")


def test_without_predictions_it_only_has_to_answer() -> None:
    assert reason_of(Classifier(), declared()) == ""


def test_inputs_and_predictions_must_be_as_many() -> None:
    assert "2 inputs and 1 predictions" in reason_of(Classifier(), declared("negative", inputs=["a", "b"]))


def test_inputs_that_do_not_fit_the_model_are_told() -> None:
    assert "it does not answer its canary: Item 0 must be a text" in reason_of(Classifier(), declared(inputs=[1]))


def recorded_in(precision: str, model: LoadedModel) -> dict[str, Any]:
    recorded: dict[str, Any] = Canary(spec(precision=precision), model).at_load()["recorded"]
    return recorded


def differs_in(precision: str, model: LoadedModel, canary: dict[str, Any]) -> str:
    try:
        Canary(spec(canary=canary, precision=precision), model).at_load()
    except CanaryFailed as failed:
        return str(failed.facts["difference"]).removeprefix("it answers its canary wrongly: ")
    return ""


@pytest.mark.parametrize(("recorded", "loaded"), [("", "bf16"), ("int8", ""), ("bf16", "int8")])
def test_another_precision_may_answer_a_little_otherwise(recorded: str, loaded: str) -> None:
    canary = recorded_in(recorded, Fixed(y=np.array([[1.0, 0.0]], dtype=np.float32)))
    assert canary["precision"] == recorded
    assert differs_in(loaded, Fixed(y=np.array([[1.03, 0.04]], dtype=np.float32)), canary) == ""
    assert differs_in(loaded, Fixed(y=np.array([[1.2, 0.0]], dtype=np.float32)), canary) == (
        "y[0] is 1.2, where it should be 1"
    )
    assert differs_in(loaded, Fixed(z=np.zeros((1, 2), dtype=np.float32)), canary) == 'there is no output "y" any more'


def test_an_embedding_of_another_precision_is_told_by_its_direction() -> None:
    wide = np.linspace(-1, 1, 384, dtype=np.float32)[None]
    canary = recorded_in("", Fixed(embedding=wide))
    assert differs_in("bf16", Fixed(embedding=wide + np.float32(0.01)), canary) == ""
    assert differs_in("bf16", Fixed(embedding=-wide), canary).startswith("embedding 0 points elsewhere")
    assert differs_in("", Fixed(embedding=wide + np.float32(0.01)), canary) != ""


def test_what_metadata_promises_holds_in_a_lower_precision_too() -> None:
    promised = declared({"label": "negative", "score": 0.78})
    assert differs_in("bf16", Classifier(), promised) == ""
    assert differs_in("", Classifier(), promised) != ""
    assert differs_in("bf16", Classifier(), declared("positive")) != ""
