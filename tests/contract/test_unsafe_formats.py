"""What is never loaded, and what only a person's approval lets in."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loaderd import catalogue
from loaderd.errors import ArtifactChanged, ArtifactRefused, LoadFailed
from loaderd.frameworks.base import Artifact
from tests.contract import tensorflow_artifacts, transformers_artifacts
from tests.contract.cases import TENSORFLOW, TRANSFORMERS, Case, artifact_of, batch, listed_files, load

sklearn_group = pytest.mark.xdist_group("sklearn")
transformers_group = pytest.mark.xdist_group("transformers")
tensorflow_group = pytest.mark.xdist_group("tensorflow")


def artifact(directory: Path, format_name: str, approved: bool = False, **config: Any) -> Artifact:
    return Artifact(
        "suspect-v1",
        directory,
        format_name,
        listed_files(directory),
        approved,
        config=config,
        metadata={"sample_input": [[1.0]]},
    )


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@sklearn_group
@pytest.mark.parametrize(("format_name", "file"), [("pickle", "model.pkl"), ("joblib", "model.joblib")])
def test_a_pickle_without_approval_is_not_even_opened(tmp_path: Path, format_name: str, file: str) -> None:
    mark = tmp_path / "mark"
    (tmp_path / file).write_bytes(pickle.dumps(Trap(mark)))
    with pytest.raises(ArtifactRefused, match=r"Python pickle.*manage.py approve suspect-v1"):
        load(artifact(tmp_path, format_name), "sklearn")
    assert not mark.exists()


@sklearn_group
def test_unknown_types_of_a_skops_file_are_listed_and_then_trusted(tmp_path: Path) -> None:
    import numpy as np
    import skops.io
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    pipeline = make_pipeline(FunctionTransformer(json.dumps, validate=False), LinearRegression())
    pipeline[1].fit([[1.0], [2.0]], [1.0, 2.0])
    pipeline[0].func = np.negative
    pipeline[0].inverse_func = json.loads
    skops.io.dump(pipeline, tmp_path / "model.skops")
    with pytest.raises(ArtifactRefused, match=r"json.*loads.*manage.py approve suspect-v1") as refused:
        load(artifact(tmp_path, "skops"), "sklearn")
    assert refused.value.facts["types"]
    loaded = load(artifact(tmp_path, "skops", approved=True), "sklearn")
    np.testing.assert_allclose(loaded.predict({"features": np.array([[3.0]])})["prediction"], -3.0)


@sklearn_group
def test_the_choice_between_two_files_is_not_guessed(tmp_path: Path) -> None:
    for name in ("one.pkl", "two.pkl"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(LoadFailed, match=r"2 files .*one.pkl, two.pkl.*model.pkl"):
        load(artifact(tmp_path, "pickle", approved=True), "sklearn")


@transformers_group
def test_a_torch_file_that_pickles_code_is_refused_by_weights_only(tmp_path: Path) -> None:
    import torch

    transformers_artifacts.several_labels(tmp_path)
    mark = tmp_path / "mark"
    torch.save({"weights": Trap(mark)}, tmp_path / "pytorch_model.bin")
    config = json.loads((tmp_path / "config.json").read_text())
    with pytest.raises(ArtifactRefused, match=r"more than weights.*safetensors"):
        load(artifact(tmp_path, "torch-weights", approved=True, **config), "transformers")
    assert not mark.exists()


@transformers_group
def test_code_beside_the_weights_is_not_run(tmp_path: Path) -> None:
    transformers_artifacts.regression(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {
        "model_type": "homemade",
        "auto_map": {
            "AutoConfig": "homemade.Config",
            "AutoModelForSequenceClassification": "homemade.Network",
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    mark = tmp_path.parent / f"{tmp_path.name}-mark"
    (tmp_path / "homemade.py").write_text(f"open({str(mark)!r}, 'w')")
    with pytest.raises(ArtifactRefused, match="code of its own"):
        load(artifact(tmp_path, "safetensors", approved=True, **config), "transformers")
    assert not mark.exists()


@transformers_group
def test_weights_that_do_not_fit_the_architecture_are_not_filled_up_with_chance(tmp_path: Path) -> None:
    transformers_artifacts.fill_mask(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"architectures": ["BertForSequenceClassification"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(LoadFailed, match=r"lack .*classifier"):
        load(artifact(tmp_path, "safetensors", **config), "transformers")


@transformers_group
def test_an_architecture_without_a_task_is_named(tmp_path: Path) -> None:
    config = {"model_type": "bert", "architectures": ["BertForQuestionAnswering"]}
    with pytest.raises(LoadFailed, match="BertForQuestionAnswering; those that can be served"):
        load(artifact(tmp_path, "safetensors", **config), "transformers")


@transformers_group
def test_a_file_that_nobody_registered_stops_the_load(tmp_path: Path) -> None:
    case = next(case for case in TRANSFORMERS if case.name == "safetensors-regression")
    case.build(tmp_path)
    registered = artifact_of(case, tmp_path)
    (tmp_path / "added_tokens.json").write_text("{}")
    with pytest.raises(ArtifactChanged, match=r"added_tokens.json, which is not among .*manage.py discover"):
        load(registered, "transformers")


def _lambda_archive(directory: Path) -> None:
    import keras

    layers = [keras.Input(shape=(2,)), keras.layers.Lambda(lambda x: x), keras.layers.Dense(1)]
    keras.Sequential(layers).save(directory / "model.keras")


def _edited_archive(directory: Path, old: str, new: str) -> None:
    tensorflow_artifacts.keras_softmax(directory)
    with zipfile.ZipFile(directory / "model.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = parts["config.json"].decode()
    assert old in config
    parts["config.json"] = config.replace(old, new, 1).encode()
    with zipfile.ZipFile(directory / "model.keras", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


@tensorflow_group
@pytest.mark.parametrize(
    ("build", "named"),
    [
        (_lambda_archive, "Lambda"),
        (
            lambda directory: _edited_archive(directory, '"class_name": "Dense"', '"class_name": "TFSMLayer"'),
            "TFSMLayer",
        ),
        (lambda directory: _edited_archive(directory, '"module": "keras.layers"', '"module": "os.path"'), "os.path"),
    ],
    ids=["lambda", "tfsm-layer", "foreign-module"],
)
def test_a_keras_archive_with_code_is_refused_even_when_approved(
    tmp_path: Path, build: Callable[[Path], None], named: str
) -> None:
    build(tmp_path)
    with pytest.raises(ArtifactRefused, match=f"suspect-v1 contains .*{named}"):
        load(artifact(tmp_path, "keras", approved=True), "tensorflow")


@tensorflow_group
def test_an_h5_file_is_recognised_and_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "model.h5").write_bytes(b"\x89HDF")
    found = catalogue.detect(listed_files(tmp_path), {})
    assert found is not None
    assert (found[0].name, found[1].name) == ("tensorflow", "h5")
    with pytest.raises(ArtifactRefused, match=r"\.h5 file.*model.keras"):
        load(artifact(tmp_path, "h5", approved=True), "tensorflow")


@tensorflow_group
@pytest.mark.parametrize("format_name", ["saved-model", "saved_model", "from-the-future"])
def test_what_would_be_read_as_a_saved_model_needs_approval(tmp_path: Path, format_name: str) -> None:
    with pytest.raises(ArtifactRefused, match="manage.py approve suspect-v1"):
        load(artifact(tmp_path, format_name), "tensorflow")


@tensorflow_group
def test_an_archive_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_bytes(b"nothing")
    with pytest.raises(LoadFailed, match=r"model.keras of suspect-v1 is no keras v3 archive"):
        load(artifact(tmp_path, "keras"), "tensorflow")


@tensorflow_group
def test_batches_of_other_sizes_are_not_traced_again(tmp_path: Path) -> None:
    import tensorflow as tf

    case: Case = next(case for case in TENSORFLOW if case.name == "keras-softmax")
    case.build(tmp_path)
    model = load(artifact_of(case, tmp_path), "tensorflow")
    model.warm_up()
    from tensorflow.python.eager.polymorphic_function import tracing_compilation

    def traced(*arguments: Any, **options: Any) -> Any:
        pytest.fail("traced again")

    original = tracing_compilation.trace_function
    tracing_compilation.trace_function = traced
    try:
        for size in (1, 2, 5, 17):
            model.predict(batch(case.items[:size], model.signature))
    finally:
        tracing_compilation.trace_function = original
    assert tf.executing_eagerly()
