"""What a model answered, as people read it: labels with bars, embeddings with their likeness, else a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

from modelhub.console.playground.signature import Signature

SHOWN_SCORES = 5
SHOWN_VALUES = 8
SHOWN_CHARACTERS = 2000
# A list of so many numbers is a vector; fewer are read one by one.
EMBEDDING_LENGTH = 16
# Two answers are taken for the same as the shadow's comparison takes them: docs/inference.md.
RELATIVE, ABSOLUTE = 1e-3, 1e-4
SCORE_STEP = 0.05  # scores that are further apart are marked


@dataclass(frozen=True, slots=True)
class Score:
    """One label's score. percent: the length of its bar, 0 to 100. shown: "87 %", or the plain value of a decision
    function. is_other: it differs from the other version's."""

    label: str
    percent: float
    shown: str
    is_chosen: bool = False
    is_other: bool = False


@dataclass(frozen=True, slots=True)
class Shown:
    """One item's answer. One of: scores (with `label`), a vector, rows of (name, value).

    labels: where several may apply. more: how many scores are not shown. is_other: it differs from the other
    version's answer.
    """

    label: str = ""
    labels: Sequence[str] = ()
    scores: Sequence[Score] = ()
    more: int = 0
    vector: Sequence[float] = ()
    rows: Sequence[tuple[str, str]] = ()
    is_other: bool = False

    @property
    def dimension(self) -> int:
        return len(self.vector)

    @property
    def first_values(self) -> str:
        shown = ", ".join(f"{value:.4f}" for value in self.vector[:SHOWN_VALUES])
        return f"{shown}, …" if len(self.vector) > SHOWN_VALUES else shown

    @property
    def length(self) -> float:
        return sqrt(sum(value * value for value in self.vector))


@dataclass(frozen=True, slots=True)
class Likeness:
    """Cosine similarities of embeddings. names: of the inputs. rows: one a name, a value for each, in -1 to 1 or None
    where a vector is zero."""

    names: Sequence[str] = ()
    rows: Sequence[tuple[str, Sequence[float | None]]] = field(default_factory=tuple)


def shown(prediction: Mapping[str, Any], signature: Signature, other: Mapping[str, Any] | None = None) -> Shown:
    """other: what the other version answered to the same item, or None."""
    differs = other is not None and not same(prediction, other)
    if "label" in prediction or "score" in prediction:
        return _labelled(prediction, signature, other or {}, differs)
    value = prediction.get("output", prediction.get("outputs"))
    if "output" in prediction and is_vector(value):
        return Shown(vector=tuple(map(float, value)), is_other=differs)
    named = value if "outputs" in prediction and isinstance(value, Mapping) else {"output": value}
    return Shown(rows=tuple((name, _plain(each)) for name, each in named.items()), is_other=differs)


def is_vector(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) >= EMBEDDING_LENGTH
        and all(isinstance(each, int | float) and not isinstance(each, bool) for each in value)
    )


def _labelled(prediction: Mapping[str, Any], signature: Signature, other: Mapping[str, Any], differs: bool) -> Shown:
    label = _plain(prediction.get("label"))
    several = [str(each) for each in prediction.get("labels") or ()]
    scores = prediction.get("scores") or {}
    known = {str(name): value for name, value in scores.items() if value is not None}
    others = other.get("scores") or {}
    largest = max((abs(value) for value in known.values()), default=0.0) or 1.0
    top = sorted(known.items(), key=lambda pair: -pair[1])[:SHOWN_SCORES]
    listed = tuple(
        Score(
            name,
            percent=100 * max(0.0, value) if signature.has_probabilities else 100 * max(0.0, value) / largest,
            shown=percent(value) if signature.has_probabilities else f"{value:.2f}",
            is_chosen=name == label or name in several,
            is_other=others.get(name) is not None and not _near(value, others[name], SCORE_STEP),
        )
        for name, value in top
    )
    return Shown(label, several, listed, max(0, len(known) - SHOWN_SCORES), is_other=differs)


def percent(share: float) -> str:
    """To 1 %; what is there is never shown as nothing, nor what is not all as all."""
    if 0 < share < 0.005:
        return "< 1 %"
    if 0.995 <= share < 1:
        return "> 99 %"
    return f"{share * 100:.0f} %"


def _plain(value: Any) -> str:
    if isinstance(value, str):
        text = value
    elif isinstance(value, float):
        text = f"{value:.6g}"
    else:
        text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}… ({len(text)} characters)"


def likeness(vectors: Sequence[Sequence[float]]) -> Likeness:
    """Nothing of fewer than two, or of vectors of different lengths."""
    if len(vectors) < 2 or len({len(vector) for vector in vectors}) != 1:
        return Likeness()
    names = [f"Input {number}" for number in range(1, len(vectors) + 1)]
    rows = [(name, [_cosine(one, other) for other in vectors]) for name, one in zip(names, vectors, strict=True)]
    return Likeness(names, rows)


def _cosine(one: Sequence[float], other: Sequence[float]) -> float | None:
    lengths = sqrt(sum(a * a for a in one)) * sqrt(sum(b * b for b in other))
    return sum(a * b for a, b in zip(one, other, strict=True)) / lengths if lengths else None


def same(one: Any, other: Any) -> bool:
    """Whether two versions answered alike: by the label where there is one, else by everything."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if "label" in one and "label" in other:
            return bool(one["label"] == other["label"] and one.get("labels") == other.get("labels"))
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float | int) and isinstance(other, float | int) and not isinstance(one, bool):
        return _near(one, other, ABSOLUTE)
    return bool(one == other)


def _near(one: float, other: float, absolute: float) -> bool:
    return abs(one - other) <= max(absolute, RELATIVE * max(abs(one), abs(other)))
