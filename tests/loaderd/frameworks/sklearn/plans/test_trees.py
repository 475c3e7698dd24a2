"""Plans for trees and ensembles of them: the same numbers to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier

from loaderd.errors import InvalidInput
from loaderd.frameworks.sklearn.plans import trees
from loaderd.frameworks.sklearn.plans.trees import ByTwins, InOneCall, OneByOne, TreesPlan
from tests.loaderd.frameworks.sklearn.plans.serving import answers, planned, served

pytestmark = pytest.mark.xdist_group("sklearn")

DRAW = np.random.default_rng(3)
ROWS = DRAW.normal(size=(120, 5)) * [1, 10, 0.01, 1, 1]
KINDS = (ROWS[:, 0] + ROWS[:, 3] > 0).astype(int) + (ROWS[:, 1] > 5)
NUMBERS = ROWS[:, 0] * 3 + ROWS[:, 1] ** 2

FORESTS = [
    RandomForestClassifier,
    ExtraTreesClassifier,
    RandomForestRegressor,
    ExtraTreesRegressor,
]
GROWING = st.fixed_dictionaries(
    {
        "n_estimators": st.integers(1, 12),
        "max_depth": st.sampled_from([None, 1, 4]),
        "max_leaf_nodes": st.sampled_from([None, 7]),
        "min_samples_leaf": st.sampled_from([1, 5]),
        "random_state": st.integers(0, 9),
        "bootstrap": st.booleans(),
    }
)
VALUES = st.floats(-1e6, 1e6, width=32) | st.floats(-1e30, 1e30)
ASKED = st.lists(st.lists(VALUES, min_size=5, max_size=5), min_size=1, max_size=8)


def thresholds_of(estimator: Any) -> np.ndarray:
    """Rows whose every value is exactly a threshold of its feature, or next to one."""
    members = getattr(estimator, "estimators_", [estimator])
    rows = np.zeros((60, 5))
    for member in np.ravel(members):
        for feature, threshold in zip(member.tree_.feature, member.tree_.threshold, strict=True):
            if feature >= 0:
                rows[::3, feature] = threshold
                rows[1::3, feature] = np.nextafter(np.float32(threshold), np.float32(np.inf))
                rows[2::3, feature] = np.nextafter(np.float32(threshold), np.float32(-np.inf))
    return rows


def assert_same(estimator: Any, asked: Any) -> TreesPlan:
    """The plan's answer is the estimator's, to the last bit, together and one by one."""
    model = planned(estimator)
    assert isinstance(model.plan, TreesPlan)
    asked = np.asarray(asked, dtype=np.float64)
    wanted = np.asarray(getattr(estimator, model.method)(asked))
    np.testing.assert_array_equal(model.plan(asked), wanted)
    np.testing.assert_array_equal(np.concatenate([model.plan(row[None]) for row in asked]), wanted)
    return model.plan


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(FORESTS), GROWING, st.integers(1, 3), st.sampled_from([None, "balanced", {0: 5}]), ASKED)
def test_a_forest_s_plan_adds_up_the_same_leaves(
    kind: type, growing: dict[str, Any], outputs: int, class_weight: Any, asked: list[list[float]]
) -> None:
    classifies = issubclass(kind, RandomForestClassifier | ExtraTreesClassifier)
    if classifies and outputs == 1:
        growing = growing | {"class_weight": class_weight}
    one = KINDS if classifies else NUMBERS
    wanted = one if outputs == 1 else np.column_stack([one, one[::-1], one // 2][:outputs])
    forest = kind(**growing).fit(ROWS, wanted)
    assert_same(forest, np.vstack([asked, ROWS[:20], thresholds_of(forest)]))


@pytest.mark.parametrize(
    "estimator",
    [
        DecisionTreeClassifier(random_state=0),
        ExtraTreeClassifier(random_state=0),
        DecisionTreeRegressor(max_depth=4, random_state=0),
        RandomForestRegressor(5, monotonic_cst=[1, 0, 0, -1, 0], random_state=0),
        RandomForestClassifier(5, ccp_alpha=0.01, random_state=0),
    ],
    ids=["tree", "extra tree", "regression tree", "monotonic", "pruned"],
)
def test_single_trees_and_constrained_ones_too(estimator: Any) -> None:
    estimator.fit(ROWS, KINDS)
    assert_same(estimator, np.vstack([ROWS, thresholds_of(estimator)]))


@pytest.mark.parametrize(
    "estimator",
    [
        GradientBoostingClassifier(n_estimators=8, random_state=0),
        GradientBoostingClassifier(n_estimators=8, init="zero", random_state=0),
        GradientBoostingRegressor(n_estimators=8, loss="huber", random_state=0),
    ],
)
def test_gradient_boosting_skips_what_is_not_the_trees(estimator: Any) -> None:
    estimator.fit(ROWS, KINDS)
    assert_same(estimator, np.vstack([ROWS, thresholds_of(estimator)]))
    estimator.fit(ROWS, KINDS > 0)
    assert_same(estimator, ROWS)


def test_gradient_boosting_that_begins_with_a_model_has_no_plan() -> None:
    boosted = GradientBoostingClassifier(n_estimators=3, init=LogisticRegression()).fit(ROWS, KINDS)
    assert served(boosted).plan is None


def test_scalers_before_a_forest_are_part_of_the_plan() -> None:
    forest = RandomForestClassifier(6, random_state=0)
    for scaler in (StandardScaler(), MinMaxScaler(clip=True)):
        pipeline = make_pipeline(scaler, forest).fit(ROWS, KINDS)
        assert_same(pipeline, np.vstack([ROWS, ROWS * 100]))


def test_which_way_down_the_trees_depends_on_what_their_leaves_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    regressor = RandomForestRegressor(3, random_state=0).fit(ROWS, NUMBERS)
    classifier = RandomForestClassifier(3, random_state=0).fit(ROWS, KINDS)
    assert isinstance(assert_same(regressor, ROWS)._sums, InOneCall)
    assert isinstance(assert_same(classifier, ROWS)._sums, ByTwins)
    monkeypatch.setattr(trees, "MAX_TWIN_BYTES", 1000)
    assert isinstance(assert_same(classifier, ROWS)._sums, OneByOne), "a large forest is not copied"


def test_a_large_batch_goes_down_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "CHUNK_LEAVES", 30)
    assert_same(RandomForestClassifier(4, random_state=0).fit(ROWS, KINDS), ROWS)


def test_with_threads_of_its_own_the_forest_takes_very_large_batches_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    forest = RandomForestRegressor(4, n_jobs=2, random_state=0).fit(ROWS, NUMBERS)
    model = planned(forest, threads=2)
    assert model.plan is not None
    many = np.tile(ROWS, (20, 1))
    with pytest.raises(trees.Declined):
        model.plan(many)
    np.testing.assert_allclose(answers(model, many)["prediction"], forest.predict(many), rtol=1e-12)


def test_nan_is_answered_by_a_forest_that_knows_it_and_refused_by_one_that_does_not() -> None:
    rows = ROWS.copy()
    rows[::7, 2] = np.nan
    knows = RandomForestClassifier(5, random_state=0).fit(rows, KINDS)
    np.testing.assert_allclose(answers(planned(knows), rows)["probabilities"], knows.predict_proba(rows), rtol=1e-6)
    does_not = planned(GradientBoostingRegressor(n_estimators=3).fit(ROWS, NUMBERS))
    for value in (np.nan, np.inf, -np.inf, 1e300):
        broken = ROWS.copy()
        broken[4, 1] = value
        if np.isfinite(value):
            with pytest.raises(ValueError, match="too large for dtype"), np.errstate(over="ignore"):
                answers(does_not, broken)
        else:
            with pytest.raises(InvalidInput, match="Row 4 holds NaN or infinity"):
                answers(does_not, broken)


def test_a_sample_with_a_gap_does_not_cost_the_plan() -> None:
    rows = ROWS.copy()
    rows[::7, 2] = np.nan
    forest = RandomForestClassifier(5, random_state=0).fit(rows, KINDS)
    model = planned(forest, metadata={"sample_input": [[0.5, 1.0, float("nan"), 0.0, 0.0]]})
    np.testing.assert_array_equal(model.plan(ROWS), forest.predict_proba(ROWS))


class Subclass(RandomForestClassifier):
    """Might do anything."""


def test_a_subclass_or_a_changed_member_has_no_plan() -> None:
    assert served(Subclass(3).fit(ROWS, KINDS)).plan is None
    forest = RandomForestClassifier(3).fit(ROWS, KINDS)
    forest.estimators_[1].predict_proba = lambda rows, check_input=True: np.ones((len(rows), 3)) / 3
    assert served(forest).plan is None


def test_labels_and_outputs_are_those_of_the_forest() -> None:
    names = np.array(["low", "middle", "high"])[KINDS]
    forest = RandomForestClassifier(7, random_state=1).fit(ROWS, names)
    outputs = answers(planned(forest), ROWS)
    assert outputs["label"].tolist() == forest.predict(ROWS).tolist()
    assert outputs["probabilities"].dtype == np.float32
    several = RandomForestClassifier(7, random_state=1).fit(ROWS, np.column_stack([names, names[::-1]]))
    assert answers(planned(several), ROWS)["label"].tolist() == several.predict(ROWS).tolist()


def test_columns_that_a_forest_was_trained_with_by_name_need_no_table() -> None:
    pandas = pytest.importorskip("pandas")
    forest = RandomForestClassifier(5, random_state=0).fit(pandas.DataFrame(ROWS, columns=[*"abcde"]), KINDS)
    wanted = forest.predict_proba(pandas.DataFrame(ROWS, columns=[*"abcde"]))
    np.testing.assert_array_equal(planned(forest).plan(ROWS), wanted)
