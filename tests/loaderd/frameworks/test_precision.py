"""What counts as the same answer in a lower precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loaderd import catalogue
from loaderd.errors import LoadFailed
from loaderd.frameworks.base import Artifact, Signature, TensorSpec
from loaderd.frameworks.labels import classifier_outputs
from loaderd.frameworks.precision import differences

TEXT = (TensorSpec("text", "BYTES", (-1,)),)
TWO = Signature(TEXT, classifier_outputs(["no", "yes"]), ("no", "yes"))
SEVERAL = Signature(TEXT, classifier_outputs(["a", "b"], several=True), ("a", "b"))


def classes(*answers: tuple[str, float]) -> dict[str, np.ndarray]:
    return {
        "label": np.array([label for label, _ in answers], dtype=object),
        "probabilities": np.array([[1 - yes, yes] for _, yes in answers], dtype=np.float32),
    }


def only(name: str, datatype: str, *shape: int) -> Signature:
    return Signature(TEXT, (TensorSpec(name, datatype, (-1, *shape)),))


def test_probabilities_may_move_a_little() -> None:
    wanted = classes(("yes", 0.7), ("no", 0.1))
    assert differences(TWO, wanted, classes(("yes", 0.74), ("no", 0.06))) == []
    assert differences(TWO, wanted, classes(("yes", 0.9), ("no", 0.1))) == [
        "probabilities[0] is 0.1, where it should be 0.3",
        "probabilities[1] is 0.9, where it should be 0.7",
    ]


def test_another_label_is_a_difference_unless_the_full_precision_hardly_preferred_one() -> None:
    assert differences(TWO, classes(("yes", 0.505)), classes(("no", 0.495))) == []
    assert differences(TWO, classes(("yes", 0.52)), classes(("no", 0.49))) == [
        'label[0] is "no", where it should be "yes"'
    ]


def test_of_several_labels_those_at_their_threshold_may_come_and_go() -> None:
    def answer(a: float, b: float, *labels: str) -> dict[str, np.ndarray]:
        return {
            "label": np.array(["a"], dtype=object),
            "probabilities": np.array([[a, b]], dtype=np.float32),
            "labels": np.array([json.dumps(labels)], dtype=object),
        }

    assert differences(SEVERAL, answer(0.9, 0.505, "a", "b"), answer(0.9, 0.498, "a")) == []
    assert differences(SEVERAL, answer(0.9, 0.53, "a", "b"), answer(0.9, 0.495, "a")) == [
        'labels[0] is "[\\"a\\"]", where it should be "[\\"a\\", \\"b\\"]"'
    ]


def test_an_embedding_is_told_by_its_direction() -> None:
    signature = only("embedding", "FP32", 2)
    wanted = {"embedding": np.array([[1, 0], [0, 3]], dtype=np.float32)}
    assert differences(signature, wanted, {"embedding": np.array([[2, 0.1], [0.1, 1]], dtype=np.float32)}) == []
    (found,) = differences(signature, wanted, {"embedding": np.array([[1, 0], [1, 3]], dtype=np.float32)})
    assert found == "embedding 1 points elsewhere (the cosine with what it should be is 0.9487)"
    broken = {"embedding": np.full((2, 2), np.nan, dtype=np.float32)}
    assert len(differences(signature, wanted, broken)) == 2


def test_words_and_places_are_exact_and_scores_are_not() -> None:
    signature = only("entities", "BYTES")

    def entity(word: str, score: float) -> dict[str, np.ndarray]:
        return {"entities": np.array([json.dumps([{"word": word, "start": 3, "score": score}])], dtype=object)}

    assert differences(signature, entity("Ada", 0.9), entity("Ada", 0.87)) == []
    assert len(differences(signature, entity("Ada", 0.9), entity("Bob", 0.9))) == 1
    assert len(differences(signature, entity("Ada", 0.9), entity("Ada", 0.5))) == 1


def test_of_the_words_for_a_gap_the_best_counts() -> None:
    signature = only("predictions", "BYTES")

    def words(*found: str) -> dict[str, np.ndarray]:
        texts = [{"token": token, "score": 0.3, "sequence": f"a {token}"} for token in found]
        return {"predictions": np.array([json.dumps(texts)], dtype=object)}

    assert differences(signature, words("cat", "dog", "cow"), words("cat", "cow", "dog")) == []
    assert len(differences(signature, words("cat", "dog"), words("dog", "cat"))) == 1


@pytest.mark.parametrize(
    ("framework", "stored_as", "kind"),
    [
        pytest.param("sklearn", "skops", "scikit-learn models", marks=pytest.mark.xdist_group("sklearn")),
        pytest.param("tensorflow", "keras", "TensorFlow models", marks=pytest.mark.xdist_group("tensorflow")),
    ],
)
def test_a_framework_that_knows_one_precision_says_so(
    framework: str, stored_as: str, kind: str, tmp_path: Path
) -> None:
    artifact = Artifact("m-v1", tmp_path, stored_as, (), approved=True, precision="bf16")

    def load() -> Any:
        return catalogue.framework(framework).load(artifact, lambda share: None)

    with pytest.raises(LoadFailed, match=rf"^m-v1 is to be loaded in bf16 \(.*\), and {kind} compute as they are"):
        load()
