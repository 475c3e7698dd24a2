"""Every kind of model that is served: how to make one, what to ask it, what it must answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loaderd import catalogue
from loaderd.frameworks.base import Artifact, LoadedModel, Signature
from loaderd.protocol import ModelSpec
from tests.contract import sklearn_artifacts, tensorflow_artifacts, transformers_artifacts
from tests.contract.corpus import TEXTS

LABEL = ("BYTES", ())
TWO = {"label": LABEL, "probabilities": ("FP32", (2,))}
THREE = {"label": LABEL, "probabilities": ("FP32", (3,))}
FLOWERS = ["setosa", "versicolor", "virginica"]
MASKED = [text.replace("the ", "[MASK] ", 1) if "the " in text else f"[MASK] {text}" for text in TEXTS]


def rows(columns: int) -> list[list[float]]:
    return np.random.default_rng(0).normal(3.0, 2.0, (17, columns)).round(3).tolist()


@dataclass(frozen=True)
class Case:
    """build: writes the artifact into an empty directory. items: 17 of them; of several inputs, by name.

    outputs: name -> (datatype, shape of one item). labels: in order, None when it has none. bad: an input of
    the right type that the model must refuse, with a word of the sentence.
    """

    name: str
    framework: str
    format: str
    build: Callable[[Path], None]
    items: Sequence[Any]
    outputs: dict[str, tuple[str, tuple[int, ...]]]
    labels: tuple[str, ...] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    bad: tuple[Any, str] | None = None

    @property
    def needs_approval(self) -> bool:
        return catalogue.format_executes_code(self.framework, self.format)


TWO_NAMES, FLOWER_NAMES = ("negative", "positive"), tuple(FLOWERS)
NAN_ROW = ([1.0, float("nan"), 2.0, 3.0], "NaN")

SKLEARN = [
    Case("skops-text", "sklearn", "skops", sklearn_artifacts.text_skops, TEXTS, TWO, TWO_NAMES),
    Case("pickle-text", "sklearn", "pickle", sklearn_artifacts.text_pickle, TEXTS, TWO, TWO_NAMES),
    Case(
        "joblib-forest", "sklearn", "joblib", sklearn_artifacts.forest, rows(4), THREE, FLOWER_NAMES,
        {"labels": FLOWERS},
    ),
    Case(
        "joblib-compressed", "sklearn", "joblib", sklearn_artifacts.compressed, rows(4), THREE, ("0", "1", "2"),
        bad=NAN_ROW,
    ),
    Case(
        "skops-scores", "sklearn", "skops", sklearn_artifacts.linear_svc, rows(4),
        {"label": LABEL, "scores": ("FP64", (3,))}, ("0", "1", "2"),
    ),
    Case(
        "pickle-regression", "sklearn", "pickle", sklearn_artifacts.regression, rows(10), {"prediction": ("FP64", ())},
        metadata={"sample_input": {"inputs": [[0.1] * 10]}},
    ),
    Case("skops-clusters", "sklearn", "skops", sklearn_artifacts.clusters, rows(4), {"prediction": ("INT32", ())}),
    Case(
        "pickle-categories", "sklearn", "pickle", sklearn_artifacts.categories,
        [[["red", "green"][at % 2], str(at)] for at in range(17)], TWO, ("no", "yes"),
        {"sample_input": [["red", "1"]]}, (["violet", "1"], "violet"),
    ),
]  # fmt: skip

TRANSFORMERS = [
    Case(
        "safetensors-sequence", "transformers", "safetensors", transformers_artifacts.sequence_classifier, TEXTS,
        TWO, TWO_NAMES,
    ),
    Case(
        "bin-several-labels", "transformers", "torch-weights", transformers_artifacts.several_labels, TEXTS,
        {"label": LABEL, "probabilities": ("FP32", (3,)), "labels": LABEL}, ("billing", "delivery", "praise"),
    ),
    Case(
        "safetensors-regression", "transformers", "safetensors", transformers_artifacts.regression, TEXTS,
        {"prediction": ("FP32", ())},
    ),
    Case(
        "safetensors-tokens", "transformers", "safetensors", transformers_artifacts.token_classifier, TEXTS,
        {"entities": LABEL},
    ),
    Case(
        "safetensors-fill-mask", "transformers", "safetensors", transformers_artifacts.fill_mask, MASKED,
        {"predictions": LABEL}, bad=("no gap here", r"\[MASK\]"),
    ),
    Case(
        "safetensors-embedding", "transformers", "safetensors", transformers_artifacts.encoder, TEXTS,
        {"embedding": ("FP32", (32,))},
    ),
    Case(
        "safetensors-generation", "transformers", "safetensors", transformers_artifacts.generator, TEXTS,
        {"generated_text": LABEL}, metadata={"max_new_tokens": 6}, bad=("", "empty"),
    ),
    Case(
        "safetensors-minilm", "transformers", "safetensors", transformers_artifacts.minilm, TEXTS,
        {"embedding": ("FP32", (384,))}, metadata={"sample_input": ["An encoder of the real world."]},
    ),
]  # fmt: skip

TENSORFLOW = [
    Case(
        "keras-text", "tensorflow", "keras", tensorflow_artifacts.keras_text, TEXTS, TWO, TWO_NAMES,
        {"labels": list(TWO_NAMES)},
    ),
    Case(
        "keras-softmax", "tensorflow", "keras", tensorflow_artifacts.keras_softmax, rows(4), THREE, FLOWER_NAMES,
        {"labels": {"0": "setosa", "1": "versicolor", "2": "virginica"}, "sample_input": [[5.1, 3.5, 1.4, 0.2]]},
    ),
    Case(
        "keras-two-inputs", "tensorflow", "keras", tensorflow_artifacts.keras_two_inputs,
        [{"number": at, "vector": [float(at), 1.0]} for at in range(17)],
        {"price": ("FP32", (1,)), "size": ("FP32", (2,))},
        bad=({"number": 1000, "vector": [1.0, 1.0]}, "1000"),
    ),
    Case(
        "saved-model-numbers", "tensorflow", "saved-model", tensorflow_artifacts.saved_model_softmax, rows(4), THREE,
        FLOWER_NAMES, {"labels": FLOWERS},
    ),
    Case(
        "saved-model-text", "tensorflow", "saved-model", tensorflow_artifacts.saved_model_text, TEXTS,
        {"output_0": ("FP32", (1,))},
    ),
]  # fmt: skip

CASES = [*SKLEARN, *TRANSFORMERS, *TENSORFLOW]


def cases(where: Callable[[Case], Any] = lambda case: True) -> pytest.MarkDecorator:
    """Runs a test on every case, or on those that `where` picks; those of one framework go to one xdist worker."""
    chosen = [
        pytest.param(case, id=case.name, marks=pytest.mark.xdist_group(case.framework)) for case in CASES if where(case)
    ]
    return pytest.mark.parametrize("case", chosen)


def listed_files(directory: Path) -> tuple[str, ...]:
    return tuple(sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()))


def artifact_of(case: Case, directory: Path, approved: bool | None = None) -> Artifact:
    """As the registry would describe it; approved where its format asks for it."""
    config = directory / "config.json"
    return Artifact(
        model_id=case.name,
        directory=directory,
        format=case.format,
        files=listed_files(directory),
        approved=case.needs_approval if approved is None else approved,
        config=json.loads(config.read_text()) if config.exists() else {},
        metadata=case.metadata,
    )


def spec_of(case: Case, canary: dict[str, Any] | None = None) -> ModelSpec:
    """What the canary of a model reads of its spec."""
    return ModelSpec(case.name, case.name, "1", case.framework, case.format, directory="/", digest="", canary=canary)


def load(artifact: Artifact, framework_name: str) -> LoadedModel:
    framework = catalogue.framework(framework_name)
    framework.import_library()
    return framework.load(artifact, lambda share: None)


def batch(items: Sequence[Any], signature: Signature) -> dict[str, np.ndarray]:
    """The items as the data plane would hand them over."""
    from loaderd.frameworks.inputs import DTYPES

    columns = {
        spec.name: [item[spec.name] if isinstance(item, dict) else item for item in items] for spec in signature.inputs
    }
    return {spec.name: np.array(columns[spec.name], dtype=DTYPES[spec.datatype]) for spec in signature.inputs}
