"""Makes what every server serves: `python -m benchmarks.make_models FOLDER STORE`, once.

FOLDER gets text.joblib, digits.joblib, minilm/, keras.keras and items.json (64 items for each model, with the answers
of an ordinary program). STORE gets the same files as Modelhub wants them: other/<name>-v1.0/.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

# Before the libraries: what is measured computes with one thread, and so must what is compared with it.
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "",
    "KERAS_BACKEND": "tensorflow",
    "USE_TF": "0",  # transformers looks for an old keras otherwise
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from benchmarks.servers import runtime
from samples.bench_models import MINILM_PACKAGE

SEED = 7
KNOWN_IMAGES = 1400
ITEMS = 64
CLASSES = ["complaint", "question", "order"]
WORDS = {
    "complaint": "broken late refund angry damaged missing wrong disappointed terrible faulty return delay "
    "unacceptable",
    "question": "how when where could please explain possible information wonder available opening hours difference",
    "order": "order quantity ship deliver pieces invoice purchase confirm address pallet box units dispatch",
}
FILLER = (
    "hello team i am writing about the item we talked last week thank you regards my account number is attached and "
    "the office will be closed on monday let me know if anything else needed from our side customer service manager "
    "product device printer laptop chair table phone cable"
)


def emails(count: int, seed: int) -> tuple[list[str], list[str]]:
    """Texts of 25 to 60 words, and their classes."""
    chance = random.Random(seed)  # noqa: S311 (nothing is to be kept secret)
    texts, labels = [], []
    for _ in range(count):
        label = chance.choice(CLASSES)
        words = []
        for _ in range(chance.randint(25, 60)):
            kind = label if chance.random() < 0.75 else chance.choice(CLASSES)
            words.append(chance.choice((WORDS[kind] if chance.random() < 0.3 else FILLER).split()))
        texts.append(" ".join(words))
        labels.append(label)
    return texts, labels


def make_text(folder: Path) -> None:
    texts, labels = emails(4000, SEED)
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), max_features=20_000), LogisticRegression(max_iter=1000))
    joblib.dump(model.fit(texts, labels), folder / "text.joblib")


def make_digits(folder: Path) -> None:
    digits = load_digits()
    forest = RandomForestClassifier(n_estimators=100, random_state=SEED)
    joblib.dump(forest.fit(digits.data[:KNOWN_IMAGES], digits.target[:KNOWN_IMAGES]), folder / "digits.joblib")


def make_minilm(folder: Path) -> None:
    """A MiniLM whose classifier was fitted to what the frozen encoder says of 240 e-mails."""
    from importlib import import_module

    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    source = import_module(MINILM_PACKAGE).get_model_path()
    torch.manual_seed(SEED)
    names = dict(enumerate(CLASSES))
    model = AutoModelForSequenceClassification.from_pretrained(
        source, num_labels=len(CLASSES), id2label=names, label2id={name: number for number, name in names.items()}
    )
    tokenizer = AutoTokenizer.from_pretrained(source)
    texts, labels = emails(240, SEED)
    features = []
    with torch.inference_mode():
        for start in range(0, len(texts), 32):
            batch = tokenizer(texts[start : start + 32], padding=True, truncation=True, return_tensors="pt")
            features.append(model.bert(**batch).pooler_output.numpy())
    fitted = LogisticRegression(max_iter=2000).fit(np.concatenate(features), labels)
    order = [list(fitted.classes_).index(name) for name in CLASSES]
    with torch.no_grad():
        model.classifier.weight.copy_(torch.tensor(fitted.coef_[order], dtype=torch.float32))
        model.classifier.bias.copy_(torch.tensor(fitted.intercept_[order], dtype=torch.float32))
    model.save_pretrained(folder / "minilm")
    tokenizer.save_pretrained(folder / "minilm")


def make_keras(folder: Path) -> None:
    import keras

    keras.utils.set_random_seed(SEED)
    digits = load_digits()
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Rescaling(1 / 16),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(256, activation="relu"),
            layers.Dense(10, activation="softmax", name="digit"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    images = digits.images[:KNOWN_IMAGES, ..., None].astype(np.float32)
    model.fit(images, digits.target[:KNOWN_IMAGES], epochs=3, batch_size=32, verbose=0)
    keras.Model(model.inputs, model.outputs).save(folder / "keras.keras")


def write_items(folder: Path) -> None:
    texts = emails(ITEMS, seed=99)[0]
    images = load_digits().data[KNOWN_IMAGES : KNOWN_IMAGES + ITEMS].tolist()
    items = {"text": texts, "minilm": texts, "digits": images, "keras": images}
    expected = {}
    for name, asked in items.items():  # each in a fresh process: this one's keras has already started its threads
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            expected[name] = pool.submit(_answers, name, str(folder), asked).result()
    (folder / "items.json").write_text(json.dumps({"items": items, "expected": expected}))


def _answers(name: str, folder: str, items: list[Any]) -> list[str]:
    return runtime.load(name, folder)(items)


def fill_store(folder: Path, store: Path) -> None:
    """The same bytes, with the metadata that a careful user writes."""
    digits = [str(number) for number in range(10)]
    described: dict[str, tuple[str, str, dict[str, Any]]] = {
        "text": ("text.joblib", "sklearn", {}),
        "digits": ("digits.joblib", "sklearn", {}),
        "minilm": ("minilm", "transformers", {}),
        "keras": ("keras.keras", "tensorflow", {"labels": digits}),
    }
    for name, (source, framework, config) in described.items():
        target = store / "other" / f"{name}-v1.0"
        shutil.rmtree(target, ignore_errors=True)
        if (folder / source).is_dir():
            shutil.copytree(folder / source, target)
        else:
            target.mkdir(parents=True)
            shutil.copy(folder / source, target / f"model{Path(source).suffix}")
        metadata = {"name": f"Benchmark: {name}", "version": "1.0", "lineage": name, "framework": framework}
        (target / "metadata.json").write_text(json.dumps(metadata, indent=2))
        for file in target.iterdir():
            file.chmod(0o644)  # some libraries write for their owner only; a model process may run as somebody else
        if config:
            (target / "config.json").write_text(json.dumps(config, indent=2))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("store", type=Path)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for make in (make_text, make_digits, make_minilm, make_keras, write_items):
        make(arguments.folder)
    fill_store(arguments.folder, arguments.store)
    return 0


if __name__ == "__main__":
    sys.exit(main())
