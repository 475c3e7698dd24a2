"""What a network's last layer says about its answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loaderd import catalogue
from loaderd.errors import LoadFailed
from loaderd.frameworks.base import Artifact, LoadedModel
from tests.contract.cases import listed_files

pytestmark = pytest.mark.xdist_group("tensorflow")


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    catalogue.framework("tensorflow").import_library()


def load(directory: Path, *layers: Any, batch_size: int | None = None, labels: list[str] | None = None) -> LoadedModel:
    import keras

    given = keras.Input(shape=(4,), batch_size=batch_size, name="row")
    keras.Sequential([given, *layers]).save(directory / "model.keras")
    metadata = {"labels": labels} if labels else {}
    artifact = Artifact("m-v1", directory, "keras", listed_files(directory), approved=False, metadata=metadata)
    return catalogue.framework("tensorflow").load(artifact, lambda share: None)


def outputs(model: LoadedModel) -> list[str]:
    return [spec.name for spec in model.signature.outputs]


def test_a_sigmoid_per_label_means_that_several_may_apply(tmp_path: Path) -> None:
    import keras

    model = load(tmp_path, keras.layers.Dense(2, activation="sigmoid"), labels=["urgent", "angry"])
    assert outputs(model) == ["label", "probabilities", "labels"]


def test_a_softmax_layer_of_its_own_counts_too(tmp_path: Path) -> None:
    import keras

    model = load(tmp_path, keras.layers.Dense(2), keras.layers.Softmax(), labels=["no", "yes"])
    assert outputs(model) == ["label", "probabilities"]
    model.warm_up()


def test_logits_stay_logits_though_there_are_labels(tmp_path: Path) -> None:
    import keras

    model = load(tmp_path, keras.layers.Dense(2, name="logits"), labels=["no", "yes"])
    assert outputs(model) == ["logits"]
    assert model.signature.labels is None


def test_labels_that_do_not_fit_leave_the_output_as_it_is(tmp_path: Path) -> None:
    import keras

    model = load(tmp_path, keras.layers.Dense(3, activation="softmax", name="kinds"), labels=["no", "yes"])
    assert outputs(model) == ["kinds"]


def test_a_network_with_a_fixed_batch_cannot_be_asked_in_batches(tmp_path: Path) -> None:
    import keras

    with pytest.raises(LoadFailed, match=r"m-v1 has row of the shape \[8, 4\]; the first dimension must be open"):
        load(tmp_path, keras.layers.Dense(1), batch_size=8)


def test_no_size_of_a_batch_is_traced_again_or_answered_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras
    import numpy as np

    layers = [keras.layers.Dense(8, activation="relu"), keras.layers.Dense(3, activation="softmax")]
    traced = []
    compute = keras.layers.Dense.call

    def counted(layer: Any, inputs: Any, training: Any = None) -> Any:
        traced.append(layer.name)
        return compute(layer, inputs, training=training)

    monkeypatch.setattr(keras.layers.Dense, "call", counted)
    model = load(tmp_path, *layers, labels=["a", "b", "c"])
    model.warm_up()
    rows = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    wanted = layers[1](layers[0](rows)).numpy()
    traced.clear()
    for size in (1, 2, 3, 8, 32, 64):
        answer = model.predict({"row": rows[:size]})["probabilities"]
        np.testing.assert_allclose(answer, wanted[:size], atol=1e-5)
    assert traced == []


def test_a_function_is_called_as_it_is_where_tensorflow_has_no_shorter_way() -> None:
    import tensorflow as tf

    from loaderd.frameworks.tensorflow.keras_archive import _flat

    scale = tf.Variable(3.0)
    concrete = tf.function(lambda x: [x * scale]).get_concrete_function(tf.TensorSpec((None,), tf.float32))

    class Older:
        def __call__(self, *tensors: Any) -> Any:
            return concrete(*tensors)

    for run in (_flat(concrete), _flat(Older())):
        (answer,) = run(tf.constant([1.0, 2.0]))
        assert answer.numpy().tolist() == [3.0, 6.0]
