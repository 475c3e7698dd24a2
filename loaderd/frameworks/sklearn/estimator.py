"""A fitted estimator or pipeline that answers batches."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import warnings
from abc import abstractmethod
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import threadpoolctl
from sklearn.base import BaseEstimator, is_classifier
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC, NuSVC

from loaderd.errors import InvalidInput, LoadFailed
from loaderd.frameworks.base import Artifact, LoadedModel, Signature, TensorSpec
from loaderd.frameworks.inputs import DATATYPES, checked, sample
from loaderd.frameworks.labels import classified, classifier_outputs, declared_labels, names_of, several_labels
from loaderd.frameworks.sklearn.features import input_of
from loaderd.frameworks.sklearn.plans import Declined, Plan, plan_for

if TYPE_CHECKING:
    from loaderd.frameworks.base import Batch

DECIDES_ITSELF = (SVC, NuSVC, FixedThresholdClassifier, TunedThresholdClassifierCV)
"""Classifiers whose answer need not be the most probable class: they are asked for it."""


@lru_cache(maxsize=1)
def thread_pools() -> threadpoolctl.ThreadpoolController:
    """The BLAS and OpenMP libraries of this process."""
    return threadpoolctl.ThreadpoolController()


def model_for(estimator: Any, artifact: Artifact) -> EstimatorModel:
    """The model that answers what this estimator can. Raises LoadFailed when it cannot predict."""
    if not hasattr(estimator, "predict"):
        raise LoadFailed(
            f"{artifact.model_id} holds a {type(estimator).__name__}, which has no predict(); "
            "save a fitted estimator or a pipeline that ends in one.",
            model_id=artifact.model_id,
        )
    if not is_classifier(estimator):
        return Predictor(estimator, artifact)
    if isinstance(estimator.classes_, list):
        return MultiOutputClassifier(estimator, artifact)
    if hasattr(estimator, "predict_proba"):
        return ProbabilisticClassifier(estimator, artifact)
    if hasattr(estimator, "decision_function"):
        return ScoringClassifier(estimator, artifact)
    return LabellingClassifier(estimator, artifact)


class EstimatorModel(LoadedModel):
    """What all have in common: the input. Subclasses add the outputs.

    method: of the estimator, that `_computed` asks for the answer. plan: answers in its place where it can.
    """

    method = "predict"

    def __init__(self, estimator: Any, artifact: Artifact) -> None:
        self._estimator = estimator
        self._metadata = artifact.metadata
        self._columns = _columns(estimator)
        self._limit_threads(artifact.threads)
        self.signature = Signature(inputs=(input_of(estimator, artifact),), outputs=())
        self._name = self.signature.inputs[0].name
        self.plan = self._planned()
        self.any_thread = self.plan is not None
        outputs, labels = self._outputs(artifact)
        self.signature = Signature(self.signature.inputs, outputs, labels)

    @abstractmethod
    def _outputs(self, artifact: Artifact) -> tuple[tuple[TensorSpec, ...], tuple[str, ...] | None]:
        """The signature's outputs and labels."""

    @abstractmethod
    def _answer(self, items: Any) -> dict[str, np.ndarray]:
        """The outputs for a list of texts, or for rows."""

    def predict(self, inputs: Batch) -> dict[str, np.ndarray]:
        values = checked(inputs, self.signature)[self._name]
        try:
            return self._answer(values.tolist() if values.ndim == 1 else values)
        except ValueError as error:
            if values.ndim == 2 and self.signature.inputs[0].datatype == "BYTES":
                raise InvalidInput(f"The model does not take these values: {error}") from error
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
                raise InvalidInput(f"Row {row} holds NaN or infinity, which this model does not take.") from error
            raise

    def sample_input(self) -> dict[str, np.ndarray]:
        return sample(self.signature, self._metadata)

    def _sample_items(self) -> Any:
        values = self.sample_input()[self._name]
        return values.tolist() if values.ndim == 1 else values

    def _planned(self) -> Plan | None:
        spec = self.signature.inputs[0]
        if spec.datatype == "BYTES" and len(spec.shape) > 1:
            return None
        try:
            sample_items = self._sample_items()
        except LoadFailed:  # the sample does not fit: the plan's own trial is left
            return None
        return plan_for(self._estimator, self.method, functools.partial(self._asked_itself, self.method), sample_items)

    def _computed(self, items: Any) -> Any:
        """What the estimator's `method` answers."""
        if self.plan is not None:
            with contextlib.suppress(Declined):
                return self.plan(items)
        return self._asked_itself(self.method, items)

    def _asked_itself(self, method: str, items: Any) -> Any:
        if self._columns is not None and not isinstance(items, list):
            import pandas

            items = pandas.DataFrame(items, columns=self._columns)
        with self._without_name_warnings():
            return getattr(self._estimator, method)(items)

    def _class_numbers(self, predicted: Any) -> np.ndarray:
        return np.searchsorted(self._estimator.classes_, predicted)

    def _without_name_warnings(self) -> contextlib.AbstractContextManager[None]:
        named = self._columns is None and hasattr(self._estimator, "feature_names_in_")
        return _name_warnings_ignored() if named else contextlib.nullcontext()

    def _limit_threads(self, threads: int) -> None:
        """One model may not take every core: neither its BLAS nor the n_jobs it was trained with."""
        thread_pools().limit(limits=threads)
        jobs = [name for name in self._estimator.get_params() if name.split("__")[-1] == "n_jobs"]
        self._estimator.set_params(**dict.fromkeys(jobs, threads))
        for part in _parts(self._estimator):  # what was fitted are copies, which the parameters do not reach
            if "n_jobs" in vars(part):
                part.n_jobs = threads


class ProbabilisticClassifier(EstimatorModel):
    method = "predict_proba"

    def _outputs(self, artifact: Artifact) -> tuple[tuple[TensorSpec, ...], tuple[str, ...] | None]:
        final = _final(self._estimator)
        self._several = _is_multilabel(final)
        self._asked = isinstance(final, DECIDES_ITSELF)
        self._labels = _labels(self._estimator, artifact)
        return classifier_outputs(self._labels, self._several), self._labels

    def _answer(self, items: Any) -> dict[str, np.ndarray]:
        chosen = self._class_numbers(self._asked_itself("predict", items)) if self._asked else None
        return classified(self._computed(items), self._labels, self._several, chosen)


class ScoringClassifier(EstimatorModel):
    """Has a decision function and no probabilities; "scores" are in the units of that function."""

    method = "decision_function"

    def _outputs(self, artifact: Artifact) -> tuple[tuple[TensorSpec, ...], tuple[str, ...] | None]:
        self._labels = _labels(self._estimator, artifact)
        final = _final(self._estimator)
        self._several = _is_multilabel(final)
        self._asked = isinstance(final, DECIDES_ITSELF)
        scores = self._answer(self._sample_items())
        shape = (-1, *scores["scores"].shape[1:])
        outputs = (TensorSpec("label", "BYTES", (-1,)), TensorSpec("scores", "FP64", shape))
        return (*outputs, TensorSpec("labels", "BYTES", (-1,))) if self._several else outputs, self._labels

    def _answer(self, items: Any) -> dict[str, np.ndarray]:
        scores = np.asarray(self._computed(items), dtype=np.float64)
        if self._asked:
            chosen = self._class_numbers(self._asked_itself("predict", items))
        else:
            chosen = scores.argmax(axis=1) if scores.ndim == 2 else (scores > 0).astype(int)
        outputs = {"label": names_of(self._labels)[chosen], "scores": scores}
        return outputs | {"labels": several_labels(scores > 0, self._labels)} if self._several else outputs


class LabellingClassifier(EstimatorModel):
    """Tells the class and nothing else, like a voting classifier with hard votes."""

    def _outputs(self, artifact: Artifact) -> tuple[tuple[TensorSpec, ...], tuple[str, ...] | None]:
        self._labels = _labels(self._estimator, artifact)
        return (TensorSpec("label", "BYTES", (-1,)),), self._labels

    def _answer(self, items: Any) -> dict[str, np.ndarray]:
        chosen = self._class_numbers(self._computed(items))
        return {"label": names_of(self._labels)[chosen]}


class MultiOutputClassifier(EstimatorModel):
    """Answers several questions at once: one class per question, as text."""

    def _outputs(self, artifact: Artifact) -> tuple[tuple[TensorSpec, ...], tuple[str, ...] | None]:
        return (TensorSpec("label", "BYTES", (-1, len(self._estimator.classes_))),), None

    def _answer(self, items: Any) -> dict[str, np.ndarray]:
        return {"label": np.asarray(self._computed(items)).astype(str).astype(object)}


class Predictor(EstimatorModel):
    """Regressors (FP64), and whatever else predicts: clusters and outliers with the type that they answer."""

    def _outputs(self, artifact: Artifact) -> tuple[tuple[TensorSpec, ...], tuple[str, ...] | None]:
        found = self._answer(self._sample_items())
        prediction = found["prediction"]
        shape = (-1, *prediction.shape[1:])
        return (TensorSpec("prediction", DATATYPES[str(prediction.dtype)], shape),), None

    def _answer(self, items: Any) -> dict[str, np.ndarray]:
        prediction = np.asarray(self._computed(items))
        if prediction.dtype.kind == "f":
            prediction = prediction.astype(np.float64, copy=False)
        elif prediction.dtype.kind in "OUS":
            prediction = prediction.astype(str).astype(object)
        return {"prediction": prediction}


def _labels(estimator: Any, artifact: Artifact) -> tuple[str, ...]:
    return declared_labels(artifact, len(estimator.classes_)) or tuple(str(name) for name in estimator.classes_)


def _final(estimator: Any) -> Any:
    """The estimator that decides: a pipeline's last step, a search's best."""
    while True:
        if isinstance(estimator, Pipeline):
            estimator = estimator.steps[-1][1]
        elif hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        else:
            return estimator


def _parts(estimator: Any) -> Iterator[Any]:
    """The estimator and all that it holds, fitted or not: steps, transformers, members of an ensemble."""
    seen: set[int] = set()
    ahead = [estimator]
    while ahead:
        part = ahead.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, np.ndarray) and part.dtype == object:
            ahead.extend(part.flat)
        elif isinstance(part, list | tuple):
            ahead.extend(part)
        elif hasattr(part, "__dict__") and (isinstance(part, BaseEstimator) or _is_of_sklearn(part)):
            yield part
            ahead.extend(vars(part).values())


def _is_of_sklearn(part: Any) -> bool:
    return type(part).__module__.startswith("sklearn.")  # a calibrated classifier is no BaseEstimator


def _is_multilabel(final: Any) -> bool:
    binarizer = getattr(final, "_label_binarizer", None)  # of a multi-layer perceptron
    return bool(getattr(final, "multilabel_", False) or getattr(binarizer, "y_type_", "").startswith("multilabel"))


def _columns(estimator: Any) -> Any:
    """The names of the columns that it was fitted with, when pandas is there to give them back."""
    return getattr(estimator, "feature_names_in_", None) if importlib.util.find_spec("pandas") else None


@contextlib.contextmanager
def _name_warnings_ignored() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        yield
