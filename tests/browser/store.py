"""What the product of the browser tests has in its store: real models, small, and some that are trouble."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

OLD, NEW, LINEAGE = "sentiment-sklearn-v1.0", "sentiment-sklearn-v2.0", "sentiment-sklearn"
TOPIC, DIGITS = "topic-sklearn-v1.0", "digits-sklearn-v1.0"
BROKEN = "topic-broken-v1.0"
PICKLE = "digits-pickle-v1.0"
LONG = "sentiment-of-customer-mail-in-all-languages-of-the-northern-region-before-v2.7.1"
assert len(LONG) == 80


def small(samples: Path, store: Path) -> None:
    """Fills `store` with the samples of scikit-learn, one with a broken file, one pickle, and one with a long name."""
    for folder in sorted(samples.glob("*/*-sklearn-*")):
        shutil.copytree(folder, store / folder.parent.name / folder.name)
    troubled(store)


def troubled(store: Path) -> None:
    """Adds copies of models in `store` that cannot be loaded as they are, and one with a name of 80 characters."""
    broken = copy(store, "topic", TOPIC, BROKEN)
    weights = broken / "model.skops"
    weights.write_bytes(weights.read_bytes()[:20_000])
    long = copy(store, "sentiment", OLD, LONG)
    (long / "metadata.json").write_text(json.dumps({"name": "Sentiment of customer mail in all languages " * 3}))
    pickle = store / "other" / PICKLE
    pickle.mkdir(parents=True)
    (pickle / "model.pkl").write_bytes(_pickled_iris())


def crowd(store: Path, count: int) -> list[str]:
    """Adds `count` small models of many names; returns their ids."""
    kinds = ("invoices", "parcels", "refunds", "spam", "urgency", "language", "returns", "praise")
    names = [f"{kinds[number % len(kinds)]}-sklearn-v{1 + number // len(kinds)}.0" for number in range(count)]
    for name in names:
        copy(store, "sentiment", OLD, name)
    return names


def copy(store: Path, kind: str, source: str, name: str) -> Path:
    """A copy of a model under another name and lineage: its folder."""
    target = store / kind / name
    shutil.copytree(store / kind / source, target)
    metadata = json.loads((target / "metadata.json").read_text())
    metadata |= {"lineage": name.rpartition("-v")[0], "version": name.rpartition("-v")[2]}
    (target / "metadata.json").write_text(json.dumps(metadata))
    return target


def _pickled_iris() -> bytes:
    import pickle

    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    features, target = load_iris(return_X_y=True)
    return pickle.dumps(LogisticRegression(max_iter=500).fit(features, target))
