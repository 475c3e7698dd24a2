"""Estimators that answer in less usual ways."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier, RandomForestRegressor, VotingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline, make_union
from sklearn.svm import SVC

from loaderd.errors import LoadFailed
from loaderd.frameworks.base import Artifact
from loaderd.frameworks.sklearn.estimator import EstimatorModel, model_for
from loaderd.frameworks.sklearn.reading import read

pytestmark = pytest.mark.xdist_group("sklearn")
ROWS, KINDS = load_iris(return_X_y=True)


def served(estimator: Any, **options: Any) -> EstimatorModel:
    return model_for(estimator, Artifact("m-v1", Path("/nowhere"), "pickle", (), approved=True, **options))


def answer(model: EstimatorModel, rows: Any = ROWS) -> dict[str, np.ndarray]:
    return model.predict({model.signature.inputs[0].name: np.asarray(rows)})


@pytest.mark.parametrize(
    "estimator",
    [
        FixedThresholdClassifier(LogisticRegression(), threshold=0.9, response_method="predict_proba"),
        RidgeClassifier(),
        SVC(),
        VotingClassifier([("one", GaussianNB()), ("two", LogisticRegression())]),
        RandomForestClassifier(5, random_state=0),
    ],
    ids=["threshold", "scores", "svc", "votes", "forest"],
)
def test_labels_are_those_that_the_estimator_itself_predicts(estimator: Any) -> None:
    estimator.fit(ROWS[50:], np.where(KINDS[50:] == 1, "wild", "garden"))
    assert answer(served(estimator))["label"].tolist() == estimator.predict(ROWS).tolist()


def test_more_than_one_class_may_apply() -> None:
    wanted = np.column_stack([KINDS == 0, KINDS >= 1, KINDS == 2]).astype(int)
    outputs = answer(served(OneVsRestClassifier(LogisticRegression()).fit(ROWS, wanted)))
    assert json.loads(outputs["labels"][149]) == ["1", "2"]


def test_several_questions_get_several_labels() -> None:
    model = served(RandomForestClassifier(5, random_state=0).fit(ROWS, np.column_stack([KINDS, KINDS % 2])))
    assert model.signature.outputs[0].shape == (-1, 2)
    assert answer(model)["label"][0].tolist() == ["0", "0"]


def test_several_numbers_are_predicted_at_once() -> None:
    model = served(RandomForestRegressor(3, random_state=0).fit(ROWS, ROWS[:, :2]))
    assert model.signature.outputs[0].shape == (-1, 2)
    assert answer(model)["prediction"].shape == (150, 2)


def test_a_union_of_vectorizers_takes_text() -> None:
    union = make_union(TfidfVectorizer(), TfidfVectorizer(analyzer="char"))
    model = served(make_pipeline(union, LogisticRegression()).fit(["good", "bad"], ["yes", "no"]))
    assert model.signature.takes_text


def test_a_decision_function_for_several_labels_says_which_apply() -> None:
    wanted = np.column_stack([KINDS == 0, KINDS >= 1, KINDS == 2]).astype(int)
    estimator = OneVsRestClassifier(RidgeClassifier()).fit(ROWS, wanted)
    labels = [json.loads(row) for row in answer(served(estimator))["labels"]]
    assert labels == [[str(at) for at in np.flatnonzero(row)] for row in estimator.predict(ROWS)]


def test_a_pipeline_that_begins_with_nothing_takes_what_its_next_step_does() -> None:
    model = served(make_pipeline("passthrough", GaussianNB()).fit(ROWS, KINDS))
    assert model.signature.inputs[0].shape == (-1, 4)


def test_an_estimator_that_cannot_predict_is_named() -> None:
    with pytest.raises(LoadFailed, match=r"m-v1 holds a PCA, which has no predict\(\)"):
        served(PCA().fit(ROWS))


def test_a_model_may_use_no_more_threads_than_it_was_given() -> None:
    forest = make_pipeline(RandomForestClassifier(5, n_jobs=-1, random_state=0)).fit(ROWS, KINDS)
    served(forest, threads=1)
    assert forest[-1].n_jobs == 1
    served(KMeans(2, n_init=1, random_state=0).fit(ROWS), threads=1)


def test_what_was_fitted_within_a_model_may_use_no_more_threads_either() -> None:
    forest = RandomForestClassifier(2, n_jobs=8)
    search = GridSearchCV(make_pipeline(PCA(2), forest), {"pca__n_components": [1, 2]}, cv=2).fit(ROWS, KINDS)
    votes = VotingClassifier([("forest", forest), ("bags", BaggingClassifier(forest, 2, n_jobs=8))]).fit(ROWS, KINDS)
    calibrated = CalibratedClassifierCV(forest, cv=2).fit(ROWS, KINDS)
    union = make_union(make_union(PCA(2), n_jobs=8))
    columns = make_column_transformer((union, [0, 1]), (PCA(2), [2, 3])).fit(ROWS)
    for estimator in (search, votes, calibrated, make_pipeline(columns, GaussianNB()).fit(ROWS, KINDS)):
        served(estimator, threads=1)
    within = [
        columns.named_transformers_["featureunion"].transformer_list[0][1],
        search.best_estimator_[-1],
        votes.estimators_[0],
        votes.estimators_[1].estimators_[1],
        calibrated.calibrated_classifiers_[1].estimator,
    ]
    assert [part.n_jobs for part in within] == [1] * 5


def test_a_model_of_another_version_loads_with_a_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = GaussianNB().fit(ROWS, KINDS).__getstate__() | {"_sklearn_version": "1.0.1"}
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(_Saved(state)))
    with caplog.at_level(logging.WARNING):
        estimator = read(Artifact("old-v1", tmp_path, "pickle", ("model.pkl",), approved=True))
    assert isinstance(estimator, GaussianNB)
    assert "old-v1" in caplog.text
    assert "1.0.1" in caplog.text


class _Saved:
    """Pickles as a GaussianNB in the given state."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def __reduce__(self) -> tuple[Any, ...]:
        return GaussianNB, (), self.state


@pytest.mark.parametrize("compress", [0, 3])
def test_joblib_arrays_stay_on_disk_where_they_can(tmp_path: Path, compress: int) -> None:
    import joblib

    joblib.dump(GaussianNB().fit(ROWS, KINDS), tmp_path / "m.joblib", compress=compress)
    estimator = read(Artifact("m-v1", tmp_path, "joblib", ("m.joblib",), approved=True))
    assert estimator.theta_.flags.writeable == (compress > 0), "what is mapped is read-only"
