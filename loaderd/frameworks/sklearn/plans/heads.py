"""The last step of a linear model: what it makes of a weighted sum of the features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit
from sklearn import linear_model as linear
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import ComplementNB, MultinomialNB
from sklearn.svm import LinearSVC, LinearSVR

from loaderd.frameworks.sklearn.plans.plan import is_exactly

Link = Callable[[np.ndarray], np.ndarray]

LOGISTIC = (linear.LogisticRegression, linear.LogisticRegressionCV)
CLASSIFIERS = (
    *LOGISTIC,
    linear.SGDClassifier,
    linear.RidgeClassifier,
    linear.RidgeClassifierCV,
    linear.Perceptron,
    LinearSVC,
)
BAYES = (MultinomialNB, ComplementNB)
REGRESSORS = (
    linear.LinearRegression,
    linear.Ridge,
    linear.RidgeCV,
    linear.Lasso,
    linear.LassoCV,
    linear.ElasticNet,
    linear.ElasticNetCV,
    linear.BayesianRidge,
    linear.HuberRegressor,
    linear.SGDRegressor,
    LinearSVR,
)
MAX_STACKED_BYTES = 64 << 20  # of the coefficients of several classifiers in one array


@dataclass(frozen=True, slots=True)
class Head:
    """answer = link(features @ weights.T + intercept).

    weights: [answers, features], the estimator's own array where it is one. intercept: a number or one per answer.
    """

    weights: np.ndarray
    intercept: Any
    link: Link


def head_of(estimator: Any, method: str) -> Head | None:
    """How this linear model computes `method`, or None when it is not known to the letter."""
    if is_exactly(estimator, BAYES) and method == "predict_proba":
        intercept = estimator.class_log_prior_
        if type(estimator) is ComplementNB and len(estimator.classes_) > 1:
            intercept = 0.0
        return _head(estimator.feature_log_prob_, intercept, softmax)
    if is_exactly(estimator, CLASSIFIERS):
        link = _link(estimator, method)
        return None if link is None else _head(estimator.coef_, estimator.intercept_, link)
    if is_exactly(estimator, (OneVsRestClassifier,)):
        return _one_for_each_class(estimator, method)
    if is_exactly(estimator, REGRESSORS) and method == "predict":
        one = estimator.coef_.ndim == 1
        return _head(estimator.coef_, estimator.intercept_, np.ravel if one else _as_it_is)
    return None


def _head(weights: Any, intercept: Any, link: Link) -> Head | None:
    if type(weights) not in (np.ndarray, np.memmap) or weights.dtype.kind != "f" or weights.ndim > 2:  # sparse, masked
        return None
    return Head(np.atleast_2d(weights), intercept, link)


def _one_for_each_class(estimator: Any, method: str) -> Head | None:
    """The head of a classifier that asks another one for each class."""
    heads = [head_of(member, method) for member in estimator.estimators_]
    known = [head for head in heads if head is not None and len(head.weights) == 1]
    if len(known) < len(heads) or sum(head.weights.nbytes for head in known) > MAX_STACKED_BYTES:
        return None
    if method == "decision_function":
        link: Link = np.ravel if len(known) == 1 else _as_it_is
    elif any(head.link is not binary for head in known):
        return None
    elif len(known) == 1:
        link = binary
    else:
        link = expit if estimator.multilabel_ else one_against_rest
    weights = known[0].weights if len(known) == 1 else np.concatenate([head.weights for head in known])
    return Head(weights, np.concatenate([np.broadcast_to(head.intercept, 1) for head in known]), link)


def _link(estimator: Any, method: str) -> Link | None:
    answers = len(np.atleast_2d(estimator.coef_))
    if method == "decision_function":
        return np.ravel if answers == 1 else _as_it_is
    if method != "predict_proba":
        return None
    if type(estimator) is linear.SGDClassifier:
        if estimator.loss != "log_loss":
            return None
        return binary if answers == 1 else one_against_rest
    if type(estimator) in LOGISTIC:
        return binary if answers == 1 else softmax
    return None


def _as_it_is(scores: np.ndarray) -> np.ndarray:
    return scores


def binary(scores: np.ndarray) -> np.ndarray:
    """The probabilities of the two classes by the score of the second. [items, 1] -> [items, 2]."""
    second = expit(scores)
    return np.concatenate((1 - second, second), axis=1)


def softmax(scores: np.ndarray) -> np.ndarray:
    """exp(scores) as shares of 1 in each row; changes the array."""
    scores -= np.maximum.reduce(scores, axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= np.add.reduce(scores, axis=1, keepdims=True)
    return scores


def one_against_rest(scores: np.ndarray) -> np.ndarray:
    """The probability of each class against all others, as shares of 1; equal shares where all of them are 0."""
    shares = expit(scores)
    total = shares.sum(axis=1, keepdims=True)
    nothing = total[:, 0] == 0
    if nothing.any():
        shares[nothing] = 1
        total[nothing] = shares.shape[1]
    shares /= total
    return shares
