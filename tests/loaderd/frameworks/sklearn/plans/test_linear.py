"""Plans for linear models of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import (
    ElasticNet,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import LinearSVC

from loaderd.errors import InvalidInput
from loaderd.frameworks.sklearn.plans.linear import LinearPlan
from tests.loaderd.frameworks.sklearn.plans.serving import answers, planned, served

pytestmark = pytest.mark.xdist_group("sklearn")

DRAW = np.random.default_rng(5)
ROWS = DRAW.normal(size=(60, 4)) * [1, 100, 0.01, 1] + [0, 50, 0, 3]
ROWS[:, 3] = 3.0  # a feature that never differs
KINDS = (ROWS[:, 0] > 0).astype(int) + (ROWS[:, 1] > 100)
NUMBERS = ROWS @ [1.0, 0.1, 30.0, 0.0]

SCALERS = [
    [],
    [StandardScaler()],
    [StandardScaler(with_mean=False)],
    [StandardScaler(with_std=False)],
    [MinMaxScaler((-1, 2), clip=True)],
    [MinMaxScaler()],
    [MaxAbsScaler(), RobustScaler()],
    [RobustScaler(with_centering=False)],
    ["passthrough", StandardScaler()],
]
CLASSIFIERS = [
    LogisticRegression(tol=0.1),
    LogisticRegressionCV(Cs=2, cv=2, tol=0.1, l1_ratios=(0,), use_legacy_attributes=False),
    LinearSVC(tol=0.1),
    RidgeClassifier(),
    SGDClassifier(loss="log_loss", random_state=0),
    SGDClassifier(loss="hinge", random_state=0),
]
REGRESSORS = [LinearRegression(), Ridge(), ElasticNet(), SGDRegressor(random_state=0)]
ASKED = st.lists(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4), min_size=1, max_size=6)


def assert_same(estimator: Any, asked: Any) -> None:
    model = planned(estimator)
    assert isinstance(model.plan, LinearPlan)
    asked = np.asarray(asked, dtype=np.float64)
    before = asked.copy()
    wanted = getattr(estimator, model.method)(asked)
    tolerance = 1e-9 * max(1.0, float(np.abs(wanted).max()))  # terms that cancel out leave the rounding of the larger
    np.testing.assert_allclose(model.plan(asked), wanted, rtol=1e-9, atol=tolerance)
    np.testing.assert_array_equal(asked, before, "the caller's rows are left alone")


@pytest.mark.filterwarnings("ignore")  # of training for next to no time
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(SCALERS), st.sampled_from(CLASSIFIERS), st.booleans(), ASKED)
def test_a_classifier_s_plan_answers_as_it_does(scalers: Any, final: Any, several: bool, asked: Any) -> None:
    pipeline = make_pipeline(*scalers, final).fit(ROWS, KINDS if several else KINDS > 0)
    assert_same(pipeline, np.vstack([asked, ROWS]))


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(SCALERS[1:]), st.sampled_from(REGRESSORS), ASKED)
def test_a_regressor_s_plan_answers_as_it_does(scalers: Any, final: Any, asked: Any) -> None:
    assert_same(make_pipeline(*scalers, final).fit(ROWS, NUMBERS), np.vstack([asked, ROWS]))


def test_several_numbers_at_once() -> None:
    assert_same(Ridge().fit(ROWS, np.column_stack([NUMBERS, -NUMBERS])), ROWS)
    assert_same(LinearRegression().fit(ROWS, NUMBERS[:, None]), ROWS)


@pytest.mark.parametrize(
    "before",
    [FunctionTransformer(np.log1p), PolynomialFeatures(), type("Own", (StandardScaler,), {})()],
    ids=["function", "polynomial", "subclass"],
)
def test_other_steps_have_no_plan(before: Any) -> None:
    assert served(make_pipeline(before, Ridge()).fit(np.abs(ROWS), NUMBERS)).plan is None


def test_values_that_are_no_numbers_are_refused_as_without_a_plan() -> None:
    for scaler in ([], [MinMaxScaler(clip=True)]):
        model = planned(make_pipeline(*scaler, LogisticRegression(max_iter=5000)).fit(ROWS, KINDS))
        for value in (np.nan, np.inf):
            broken = ROWS.copy()
            broken[2, 1] = value
            with pytest.raises(InvalidInput, match="Row 2 holds NaN or infinity"):
                answers(model, broken)


def test_numbers_too_large_to_check_quickly_are_answered_all_the_same() -> None:
    regression = LinearRegression().fit(ROWS, NUMBERS)
    large = np.full((1, 4), 1e200)
    assert answers(planned(regression), large)["prediction"].tolist() == regression.predict(large).tolist()


def test_labels_are_those_of_the_classifier() -> None:
    names = np.array(["low", "middle", "high"])[KINDS]
    for final in (LogisticRegression(max_iter=5000), LinearSVC()):
        pipeline = make_pipeline(StandardScaler(), final).fit(ROWS, names)
        assert answers(planned(pipeline), ROWS)["label"].tolist() == pipeline.predict(ROWS).tolist()
