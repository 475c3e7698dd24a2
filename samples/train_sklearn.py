"""Trains the scikit-learn samples; they are kept as skops files, which carry no code."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import skops.io
from sklearn.datasets import load_digits
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline, make_union

from samples.emails import examples
from samples.trainer import SEED, Progress, Train, Trained, main

LIBRARIES = ("scikit-learn", "skops", "numpy")
WORDS_AND_MARKS = r"(?u)\b\w+\b|[?!]"  # a question mark tells more of an intent than most words


def word_model() -> Pipeline:
    """TF-IDF over the words that more than one email has."""
    return make_pipeline(TfidfVectorizer(sublinear_tf=True, min_df=2, dtype=np.float32), _regression())


def hashed_model() -> Pipeline:
    """TF-IDF over word pairs and pieces of words.

    Hashed, because reading a vocabulary of 20,000 pieces from a skops file takes a hundred times as long
    as reading their weights. Two features share a place now and then; it costs no accuracy that we could measure.
    """
    words = _hashed(n_features=2**13, ngram_range=(1, 2), token_pattern=WORDS_AND_MARKS)
    pieces = _hashed(n_features=2**15, ngram_range=(3, 5), analyzer="char_wb")
    return make_pipeline(make_union(words, pieces), _regression())


def _hashed(**options: Any) -> Pipeline:
    counts = HashingVectorizer(alternate_sign=False, norm=None, dtype=np.float32, **options)
    return make_pipeline(counts, TfidfTransformer(sublinear_tf=True))


def _regression() -> LogisticRegression:
    return LogisticRegression(C=10.0, max_iter=1000, random_state=SEED)


def train_on_emails(build: Callable[[], Pipeline], task: str, folder: Path, progress: Progress) -> Trained:
    known, held_out = examples(task, "train"), examples(task, "test")
    model = build().fit(known.texts, np.array(known.names)[known.classes])
    progress(0.8)
    answers = _saved(model, folder).predict(held_out.texts)
    return Trained(
        labels=known.names,
        expected=held_out.classes,
        predicted=[known.names.index(answer) for answer in answers],
        trained_on=known.classes,
        sample_input=held_out.one_of_each(),
        config={"input": "text", "task": task},
    )


def train_digits(folder: Path, progress: Progress) -> Trained:
    """Neighbours and not a forest: skops trusts no tree, whose nodes can point outside their memory."""
    digits = load_digits()
    known, held_out, known_classes, held_out_classes = train_test_split(
        digits.data, digits.target, test_size=0.25, stratify=digits.target, random_state=SEED
    )
    model = KNeighborsClassifier(weights="distance", algorithm="brute").fit(known, known_classes)
    progress(0.8)
    return Trained(
        labels=[str(digit) for digit in digits.target_names],
        expected=held_out_classes.tolist(),
        predicted=_saved(model, folder).predict(held_out).tolist(),
        trained_on=known_classes.tolist(),
        sample_input=held_out[:2].tolist(),
        config={"input": "rows", "features": digits.data.shape[1]},
        dataset="scikit-learn digits",
    )


def _saved(model: Any, folder: Path) -> Any:
    """The model as others will read it: from its file, with no type trusted beyond those that skops knows."""
    path = folder / "model.skops"
    skops.io.dump(model, path)
    return skops.io.load(path, trusted=None)


TRAINS: dict[str, Train] = {
    "sentiment-sklearn-v1.0": partial(train_on_emails, word_model, "sentiment"),
    "sentiment-sklearn-v2.0": partial(train_on_emails, hashed_model, "sentiment"),
    "topic-sklearn-v1.0": partial(train_on_emails, hashed_model, "topic"),
    "intent-sklearn-v1.0": partial(train_on_emails, hashed_model, "intent"),
    "digits-sklearn-v1.0": train_digits,
}

if __name__ == "__main__":
    raise SystemExit(main(TRAINS, LIBRARIES))
