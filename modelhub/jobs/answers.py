"""From a prediction to the columns that a result adds, by the model's signature: known before the first row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from modelhub.jobs.formats.rows import Column, FileRefused

ERROR = "error"
PREFIX = "predicted_"  # where the input has a column of one of the names


class Answers:
    """The added columns: label, score, scores (or one a label), labels; output or outputs; last, error.

    Made with `prefix` before each name; see `prefix_beside`.
    """

    def __init__(self, signature: Mapping[str, Any], scores: str, prefix: str) -> None:
        outputs = {spec["name"]: spec for spec in signature["outputs"]}
        labels = signature.get("labels")
        self._prefix = prefix
        self._kinds: dict[str, str] = {}
        self._score_of: dict[str, str] = {}  # label -> column
        if "label" in outputs or (labels and "probabilities" in outputs):
            self._kinds["label"] = "text"
            if labels and ("probabilities" in outputs or "scores" in outputs):
                self._kinds["score"] = "number"
                if scores == "json":
                    self._kinds["scores"] = "json"
                elif scores == "columns":
                    self._score_of = {str(label): f"score_{label}" for label in labels}
                    self._kinds |= dict.fromkeys(self._score_of.values(), "number")
            if "labels" in outputs:
                self._kinds["labels"] = "json"
        elif len(outputs) == 1:
            (spec,) = outputs.values()
            self._kinds["output"] = _kind_of(spec)
        else:
            self._kinds["outputs"] = "json"

    @property
    def columns(self) -> list[Column]:
        return [*(Column(self._prefix + name, kind) for name, kind in self._kinds.items()),
                Column(self._prefix + ERROR, "text")]  # fmt: skip

    def of(self, prediction: Mapping[str, Any]) -> dict[str, Any]:
        """Column -> value of what the door answered for one item."""
        prefix = self._prefix
        values = {prefix + name: prediction.get(name) for name in self._kinds}
        if self._score_of:
            scores = prediction.get("scores") or {}
            values |= {prefix + column: scores.get(label) for label, column in self._score_of.items()}
        return values

    def of_error(self, sentence: str) -> dict[str, Any]:
        return {self._prefix + ERROR: sentence}

    def require_none_of(self, names: Iterable[str]) -> None:
        """Raises FileRefused where a result would write over one of the input's columns."""
        taken = {column.name for column in self.columns}.intersection(names)
        if taken:
            raise FileRefused(
                f'The input has "{sorted(taken)[0]}", which the result would write over; choose another prefix.'
            )


def prefix_beside(signature: Mapping[str, Any], scores: str, wanted: str, columns: Iterable[str]) -> str:
    """The prefix of the added columns: the one that was wanted, or PREFIX where none was and the input has a column of
    such a name. Raises FileRefused when that one is taken, too."""
    names = set(columns)
    for prefix in dict.fromkeys((wanted, wanted or PREFIX)):
        answers = Answers(signature, scores, prefix)
        if not names.intersection(column.name for column in answers.columns):
            return prefix
    answers.require_none_of(names)
    raise AssertionError("unreachable")


def _kind_of(spec: Mapping[str, Any]) -> str:
    datatype, dimensions = spec["datatype"], len(spec["shape"])
    if datatype == "BOOL":
        kind = "truth"
    elif datatype.startswith(("INT", "UINT")):
        kind = "whole"
    elif datatype.startswith(("FP", "BF")):
        kind = "number"
    else:
        return "json"
    if dimensions == 1:
        return kind
    return f"{kind}s" if dimensions == 2 and kind != "truth" else "json"
