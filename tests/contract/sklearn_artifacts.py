"""scikit-learn models as people save them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from tests.contract.corpus import SENTIMENTS, TEXTS


def text_pipeline() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    return make_pipeline(TfidfVectorizer(), LogisticRegression(C=10)).fit(TEXTS, SENTIMENTS)


def flowers() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_iris

    data = load_iris()
    return data.data, data.target


def text_skops(directory: Path) -> None:
    _skops(text_pipeline(), directory)


def text_pickle(directory: Path) -> None:
    _pickle(text_pipeline(), directory)


def forest(directory: Path) -> None:
    import joblib
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(20, n_jobs=-1, random_state=0).fit(*flowers())
    joblib.dump(model, directory / "model.joblib")


def compressed(directory: Path) -> None:
    import joblib
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    search = GridSearchCV(pipeline, {"logisticregression__C": [0.1, 1.0]}, cv=3).fit(*flowers())
    joblib.dump(search, directory / "flowers.joblib", compress=3)


def linear_svc(directory: Path) -> None:
    from sklearn.svm import LinearSVC

    _skops(LinearSVC(random_state=0).fit(*flowers()), directory)


def regression(directory: Path) -> None:
    from sklearn.datasets import load_diabetes
    from sklearn.linear_model import LinearRegression

    _pickle(LinearRegression().fit(*load_diabetes(return_X_y=True)), directory)


def clusters(directory: Path) -> None:
    from sklearn.cluster import KMeans

    _skops(KMeans(3, n_init=1, random_state=0).fit(flowers()[0]), directory)


def categories(directory: Path) -> None:
    """A column of words and one of numbers."""
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    table = np.array([["red", 1.0], ["green", 2.0], ["red", 3.0], ["green", 4.0]], dtype=object)
    columns = make_column_transformer((OneHotEncoder(), [0]), (StandardScaler(), [1]))
    _pickle(make_pipeline(columns, LogisticRegression()).fit(table, ["yes", "no", "yes", "no"]), directory)


def _skops(model: Any, directory: Path) -> None:
    import skops.io

    skops.io.dump(model, directory / "model.skops")


def _pickle(model: Any, directory: Path) -> None:
    (directory / "model.pkl").write_bytes(pickle.dumps(model))
