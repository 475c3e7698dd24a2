"""Trees and ensembles of them: the sum over the leaves that a row falls into, tree after tree as scikit-learn adds it.

Two C functions of scikit-learn go down a tree. `Tree.predict` is called once a tree. `predict_stages`, of gradient
boosting, goes down all trees in one call, but knows one number a leaf: for anything else each tree gets a twin whose
leaves hold their row in a table of values. Neither checks its input or starts threads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from sklearn import ensemble, tree
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble._gradient_boosting import predict_stages
from sklearn.tree._tree import Tree

from loaderd.frameworks.sklearn.plans.plan import Declined, Plan, is_exactly, steps_of
from loaderd.frameworks.sklearn.plans.scaling import Scaling, scaling_of

LARGEST = 1e38  # trees compare float32
MAX_TWIN_BYTES = 64 << 20
CHUNK_LEAVES = 1 << 14  # of one call of C, some 2 ms: other threads have their turn between two
SKLEARN_ROWS = 2000  # with two threads of its own, scikit-learn is as fast from here on
TRIAL_ROWS = 48
TRIAL_TREES = 16  # whose thresholds the trial takes rows from

CLASSIFIERS = (tree.DecisionTreeClassifier, tree.ExtraTreeClassifier)
REGRESSORS = (tree.DecisionTreeRegressor, tree.ExtraTreeRegressor)
FORESTS = {
    ensemble.RandomForestClassifier: CLASSIFIERS,
    ensemble.ExtraTreesClassifier: CLASSIFIERS,
    ensemble.RandomForestRegressor: REGRESSORS,
    ensemble.ExtraTreesRegressor: REGRESSORS,
}
BOOSTED = (ensemble.GradientBoostingClassifier, ensemble.GradientBoostingRegressor)


class Sums(ABC):
    """Goes down every tree with rows (float32, C order) and adds up what stands in the leaves: [rows, outputs, classes]
    of float64."""

    @abstractmethod
    def __call__(self, rows: np.ndarray) -> np.ndarray: ...


class OneByOne(Sums):
    """A call for each tree; needs no memory of its own."""

    def __init__(self, trees: Sequence[Tree]) -> None:
        self._trees = trees
        self._shape = trees[0].value.shape[1:]

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        total = np.zeros((len(rows), *self._shape))
        flat = total[:, 0] if self._shape[0] == 1 else total  # Tree.predict leaves a single output's dimension out
        for each in self._trees:
            flat += each.predict(rows)
        return total


class InOneCall(Sums):
    """For trees with one number a leaf: one call for all, on the trees themselves."""

    def __init__(self, trees: Sequence[Tree]) -> None:
        self._stages = _held(trees).reshape(-1, 1)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        total = np.zeros((len(rows), 1))
        predict_stages(self._stages, rows, 1.0, total)
        return total[:, :, None]


class ByTwins(Sums):
    """One call for all finds each leaf's row in the table; then the table's rows are added up."""

    def __init__(self, trees: Sequence[Tree]) -> None:
        self._shape = trees[0].value.shape[1:]
        twins, values, height = [], [], 0
        for each in trees:
            state = each.__getstate__()
            leaves = (state["nodes"]["left_child"] == -1).nonzero()[0]
            places = np.zeros((each.node_count, 1, 1))
            places[leaves, 0, 0] = np.arange(height, height + len(leaves))
            height += len(leaves)
            twin = Tree(each.n_features, np.ones(1, dtype=np.intp), 1)
            twin.__setstate__(state | {"values": places})
            twins.append(twin)
            values.append(state["values"][leaves].reshape(len(leaves), -1))
        self._twins = _held(twins).reshape(1, -1)
        self._values = np.concatenate(values)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        places = np.zeros((len(rows), self._twins.shape[1]))
        predict_stages(self._twins, rows, 1.0, places)
        leaves = self._values.take(places.T.astype(np.intp).ravel(), axis=0)
        return leaves.reshape(self._twins.shape[1], -1).sum(axis=0).reshape(len(rows), *self._shape)

    @staticmethod
    def bytes_for(trees: Sequence[Tree]) -> int:
        """At most: a node and the place of its values for every node, the values of every leaf."""
        width = int(np.prod(trees[0].value.shape[1:]))
        return sum(each.node_count * 72 + (each.node_count + 1) // 2 * width * 8 for each in trees)


def _held(trees: Sequence[Tree]) -> np.ndarray:
    held = np.empty(len(trees), dtype=object)
    held[:] = [SimpleNamespace(tree_=each) for each in trees]
    return held


def sums_of(trees: Sequence[Tree]) -> Sums:
    """The fastest for these trees that is worth its memory."""
    if trees[0].value.shape[1:] == (1, 1):
        return InOneCall(trees)
    if len(trees) > 1 and ByTwins.bytes_for(trees) <= MAX_TWIN_BYTES:
        return ByTwins(trees)
    return OneByOne(trees)


class TreesPlan(Plan):
    """finish: makes the method's answer of the rows' sums. threads: of the estimator's own way."""

    rtol = 0.0  # the same numbers, added in the same order as by one thread

    def __init__(
        self,
        scaling: Scaling,
        trees: Sequence[Tree],
        sums: Callable[[np.ndarray], np.ndarray],
        finish: Callable[[np.ndarray], np.ndarray],
        threads: int,
    ) -> None:
        self._scaling = scaling
        self._trees = trees
        self._sums = sums
        self._finish = finish
        self._max_rows = SKLEARN_ROWS if threads > 1 else None
        if threads > 1:
            self.rtol = 1e-9
        self._chunk_rows = max(1, CHUNK_LEAVES // len(trees))

    def __call__(self, items: np.ndarray) -> np.ndarray:
        if self._max_rows is not None and len(items) >= self._max_rows:
            raise Declined
        rows = np.array(self._scaling(items), dtype=np.float32, order="C")
        if len(rows) <= self._chunk_rows:
            return self._finish(self._sums(rows))
        starts = range(0, len(rows), self._chunk_rows)
        return self._finish(np.concatenate([self._sums(rows[at : at + self._chunk_rows]) for at in starts]))

    def trial(self) -> np.ndarray:
        """Rows within, beyond and exactly at the trees' thresholds."""
        draw = np.random.default_rng(7)
        width = self._trees[0].n_features
        features = np.concatenate([each.feature for each in self._trees[:TRIAL_TREES]])
        thresholds = np.concatenate([each.threshold for each in self._trees[:TRIAL_TREES]])
        features, thresholds = features[features >= 0], thresholds[features >= 0]
        low, high = np.full(width, -1.0), np.full(width, 1.0)
        np.minimum.at(low, features, thresholds)
        np.maximum.at(high, features, thresholds)
        rows = draw.uniform(low - 0.2 * (high - low), high + 0.2 * (high - low), size=(TRIAL_ROWS, width))
        rows[0] = 0
        if len(features):
            for row in rows[TRIAL_ROWS // 2 :]:
                some = draw.integers(len(features), size=max(1, min(width, 64)))
                row[features[some]] = thresholds[some]
        return rows


def trees_plan(estimator: Any, method: str) -> TreesPlan | None:
    """The plan for a tree or an ensemble of trees; None when a part of it is not known to the letter."""
    *before, last = steps_of(estimator)
    if is_exactly(last, BOOSTED):
        return _boosted(before, last, method)
    if is_exactly(last, FORESTS):
        members = last.estimators_
        if not all(is_exactly(member, FORESTS[type(last)]) for member in members):
            return None
    elif is_exactly(last, CLASSIFIERS + REGRESSORS):
        members = [last]
    else:
        return None
    trees = [member.tree_ for member in members]
    finish = _finish(last, len(trees), method)
    if finish is None or any(type(each) is not Tree for each in trees):
        return None
    scaling = scaling_of(before, last.n_features_in_, LARGEST)
    threads = getattr(last, "n_jobs", None) or 1
    return None if scaling is None else TreesPlan(scaling, trees, sums_of(trees), finish, threads)


def _finish(estimator: Any, count: int, method: str) -> Callable[[np.ndarray], np.ndarray] | None:
    """What the estimator makes of the sum over `count` trees."""
    if isinstance(estimator, FOREST_REGRESSORS):
        if method != "predict":
            return None
        several = estimator.n_outputs_ > 1
        return lambda sums: (sums[:, :, 0] if several else sums[:, 0, 0]) / count
    if estimator.n_outputs_ > 1:
        return _SeveralClasses(estimator.classes_, count) if method == "predict" else None
    classes = int(estimator.n_classes_)
    return (lambda sums: sums[:, 0, :classes] / count) if method == "predict_proba" else None


FOREST_REGRESSORS = (*REGRESSORS, ensemble.RandomForestRegressor, ensemble.ExtraTreesRegressor)


class _SeveralClasses:
    """The most probable class of each output. [rows, outputs, classes] -> [rows, outputs]."""

    def __init__(self, classes: list[np.ndarray], count: int) -> None:
        self._classes = classes
        self._count = count

    def __call__(self, sums: np.ndarray) -> np.ndarray:
        shares = sums / self._count
        chosen = np.empty(sums.shape[:2], dtype=self._classes[0].dtype)
        for output, classes in enumerate(self._classes):
            chosen[:, output] = classes.take(shares[:, output, : len(classes)].argmax(axis=1))
        return chosen


def _boosted(before: list[Any], estimator: Any, method: str) -> TreesPlan | None:
    """Gradient boosting goes down its trees in one call already; what comes before and after is less."""
    init = estimator.init_
    is_constant = isinstance(init, str) or is_exactly(init, (DummyRegressor,))
    if not is_constant and is_exactly(init, (DummyClassifier,)):
        is_constant = init.strategy == "prior"
    regresses = type(estimator) is ensemble.GradientBoostingRegressor
    stages = estimator.estimators_
    if (
        not is_constant
        or method != ("predict" if regresses else "predict_proba")
        or not all(is_exactly(member, REGRESSORS) and type(member.tree_) is Tree for member in stages.flat)
    ):
        return None
    width = estimator.n_features_in_
    scaling = scaling_of(before, width, LARGEST)
    if scaling is None:
        return None
    start = estimator._raw_predict_init(np.zeros((1, width), dtype=np.float32))
    rate, loss = estimator.learning_rate, estimator._loss

    def sums(rows: np.ndarray) -> np.ndarray:
        raw = np.repeat(start, len(rows), axis=0)
        predict_stages(stages, rows, rate, raw)
        return raw

    def finish(raw: np.ndarray) -> np.ndarray:
        raw = raw.ravel() if raw.shape[1] == 1 else raw
        return raw if regresses else loss.predict_proba(raw)

    return TreesPlan(scaling, [member.tree_ for member in stages.flat], sums, finish, threads=1)
