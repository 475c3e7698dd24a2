"""Keras models as people build them, saved and exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.contract.corpus import SENTIMENTS, TEXTS


def text_network(end: Any) -> Any:
    """Words to vectors to a mean; `end` is the last layer."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    words = keras.layers.TextVectorization(max_tokens=200, output_sequence_length=12)
    words.adapt(tf.constant(TEXTS))
    text = keras.Input(shape=(1,), dtype="string", name="text")
    hidden = keras.layers.Embedding(200, 8)(words(text))
    return keras.Model(text, end(keras.layers.GlobalAveragePooling1D()(hidden)))


def number_network() -> Any:
    import keras

    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input(shape=(4,), name="flower"),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


def keras_text(directory: Path) -> None:
    """One sigmoid tells two labels."""
    import keras
    import numpy as np
    import tensorflow as tf

    model = text_network(keras.layers.Dense(1, activation="sigmoid"))
    model.compile(keras.optimizers.Adam(0.05), "binary_crossentropy")
    wanted = np.array([[sentiment == "positive"] for sentiment in SENTIMENTS], dtype="float32")
    model.fit(tf.constant([[text] for text in TEXTS]), wanted, epochs=8, verbose=0)
    model.save(directory / "model.keras")


def keras_softmax(directory: Path) -> None:
    number_network().save(directory / "model.keras")


def keras_two_inputs(directory: Path) -> None:
    import keras

    keras.utils.set_random_seed(0)
    number = keras.Input(shape=(), dtype="int32", name="number")
    vector = keras.Input(shape=(2,), name="vector")
    hidden = keras.layers.Concatenate()([keras.layers.Embedding(100, 4)(number), vector])
    price = keras.layers.Dense(1, name="price")(hidden)
    size = keras.layers.Dense(2, name="size")(hidden)
    keras.Model({"number": number, "vector": vector}, {"price": price, "size": size}).save(directory / "pair.keras")


def saved_model_softmax(directory: Path) -> None:
    number_network().export(directory / "export", verbose=False)


def saved_model_text(directory: Path) -> None:
    """In the directory itself, with its vocabulary among the assets."""
    import keras

    text_network(keras.layers.Dense(1)).export(directory, verbose=False)
