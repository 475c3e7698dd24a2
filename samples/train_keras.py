"""Trains the keras samples; they are kept as .keras archives that load in safe mode."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split

from samples.emails import examples
from samples.trainer import SEED, Progress, Trained, main

LIBRARIES = ("tensorflow", "keras", "scikit-learn", "numpy")
PIECES = 8_000
TOPIC_EPOCHS = 40
WINE_EPOCHS = 40


def train_topic(folder: Path, progress: Progress) -> Trained:
    """Texts go in as they are: the model itself cuts them into words and into pieces of three to five letters."""
    known, held_out = examples("topic", "train"), examples("topic", "test")
    texts = tf.constant(known.texts)
    words = keras.layers.TextVectorization(output_mode="tf_idf", name="words")
    pieces = keras.layers.TextVectorization(
        max_tokens=PIECES, output_mode="tf_idf", split="character", ngrams=(3, 4, 5), name="pieces"
    )
    words.adapt(texts)
    # A vocabulary is saved with one piece per line, so none may hold a line end.
    pieces.adapt(tf.strings.regex_replace(texts, r"\s+", " "))
    progress(0.15)
    text = keras.Input((), dtype="string", name="text")
    vectors = [words(text), pieces(text)]
    topic = _head(vectors, len(known.names))
    # Texts are cut once, not in each epoch: what learns is the part of the model behind the vectors.
    head = keras.Model(vectors, topic)
    _fit(head, [words(texts), pieces(texts)], known.classes, TOPIC_EPOCHS, learning_rate=2e-3, progress=progress)
    model = _saved(keras.Model(text, topic), folder)
    answers = model.predict(tf.constant(held_out.texts), verbose=0)
    return Trained(
        labels=known.names,
        expected=held_out.classes,
        predicted=answers.argmax(axis=1).tolist(),
        trained_on=known.classes,
        sample_input=held_out.one_of_each(),
        config={"input": "text", "task": "topic"},
        parameters={"epochs": TOPIC_EPOCHS},
    )


def train_wine(folder: Path, progress: Progress) -> Trained:
    wine = load_wine()
    known, held_out, known_classes, held_out_classes = train_test_split(
        wine.data.astype(np.float32), wine.target, test_size=0.3, stratify=wine.target, random_state=SEED
    )
    scale = keras.layers.Normalization()
    scale.adapt(known)
    model = keras.Sequential(
        [
            keras.Input((known.shape[1],), name="measures"),
            scale,
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dense(len(wine.target_names), activation="softmax", name="cultivar"),
        ]
    )
    _fit(model, known, known_classes.tolist(), WINE_EPOCHS, learning_rate=1e-2, progress=progress)
    answers = _saved(keras.Model(model.inputs, model.outputs), folder).predict(held_out, verbose=0)
    return Trained(
        labels=[f"cultivar {number + 1}" for number in range(len(wine.target_names))],
        expected=held_out_classes.tolist(),
        predicted=answers.argmax(axis=1).tolist(),
        trained_on=known_classes.tolist(),
        sample_input=[[float(f"{value:g}") for value in row] for row in held_out[:2]],
        config={"input": "rows", "features": list(wine.feature_names)},
        dataset="scikit-learn wine",
        parameters={"epochs": WINE_EPOCHS},
    )


def _head(vectors: list[Any], classes: int) -> Any:
    hidden = keras.layers.Concatenate()([keras.layers.UnitNormalization()(part) for part in vectors])
    hidden = keras.layers.Dropout(0.5)(hidden)
    hidden = keras.layers.Dense(64, activation="relu")(hidden)
    hidden = keras.layers.Dropout(0.5)(hidden)
    return keras.layers.Dense(classes, activation="softmax", name="topic")(hidden)


def _fit(model: Any, inputs: Any, classes: list[int], epochs: int, learning_rate: float, progress: Progress) -> None:
    keras.utils.set_random_seed(SEED)
    model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy")
    tell = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: progress(0.15 + 0.75 * (epoch + 1) / epochs))
    model.fit(inputs, np.array(classes), epochs=epochs, batch_size=16, verbose=0, callbacks=[tell])


def _saved(model: Any, folder: Path) -> Any:
    """The model as others will read it: from its file, in safe mode, without what training needed."""
    path = folder / "model.keras"
    model.save(path)
    return keras.saving.load_model(path, compile=False, safe_mode=True)


TRAINS = {"topic-keras-v1.0": train_topic, "wine-keras-v1.0": train_wine}

if __name__ == "__main__":
    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    raise SystemExit(main(TRAINS, LIBRARIES))
