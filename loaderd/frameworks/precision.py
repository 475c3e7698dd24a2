"""Lower precision: how far its answers may be from those of the full one.

Numbers may differ by 0.05 and by 5 % of their size; the direction of an embedding by a cosine of 0.99; words and places
not at all, and labels only where the full precision hardly prefers one (TIE). Of the candidates for a masked word, the
first counts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loaderd.errors import LoadFailed
from loaderd.frameworks.base import PRECISIONS, Artifact, Signature
from loaderd.frameworks.labels import SEVERAL_THRESHOLD

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Of numbers, relative and absolute; of embeddings, by their direction alone."""

    rtol: float
    atol: float
    min_cosine: float


LOWERED = Tolerance(rtol=0.05, atol=0.05, min_cosine=0.99)

TIE = 0.02
"""Classes whose probabilities are this close, or a label's to its threshold, are as good as equal: rounding decides."""

BEST_ONLY = "predictions"
"""The output whose items are lists of candidates, best first: those behind the first change places easily."""


def refuse_precision(artifact: Artifact, kind: str) -> None:
    """Raises LoadFailed when a lower precision is asked for. kind: of model, in the plural."""
    if artifact.precision:
        what = PRECISIONS.get(artifact.precision, "which is not known here")
        raise LoadFailed(
            f"{artifact.model_id} is to be loaded in {artifact.precision} ({what}), and {kind} compute as they are "
            "stored; set its precision back to empty and load it again.",
            model_id=artifact.model_id,
            precision=artifact.precision,
        )


def differences(
    signature: Signature,
    wanted: Mapping[str, np.ndarray],
    got: Mapping[str, np.ndarray],
    tolerance: Tolerance = LOWERED,
) -> list[str]:
    """What in the outputs `got` is too far from those of the full precision, in words."""
    names = [spec.name for spec in signature.outputs]
    want, have = ({name: outputs[name].ravel().tolist() for name in names} for outputs in (wanted, got))
    return too_far(signature, want, have, {name: math.prod(wanted[name].shape[1:]) for name in names}, tolerance)


def too_far(
    signature: Signature,
    wanted: Mapping[str, Sequence[Any]],
    got: Mapping[str, Sequence[Any]],
    widths: Mapping[str, int],
    tolerance: Tolerance = LOWERED,
) -> list[str]:
    """The same of outputs that are given as lists of values, row by row, perhaps cut; `wanted` may lack some.

    widths: values in a row.
    """
    found = []
    for name in [spec.name for spec in signature.outputs if spec.name in wanted]:
        if name == "embedding":
            found += _turned(wanted[name], got[name], max(1, widths[name]), tolerance)
            continue
        found += [
            f"{name}[{at}] is {_short(have)}, where it should be {_short(want)}"
            for at, (want, have) in enumerate(zip(wanted[name], got[name], strict=False))
            if want is not None
            and not _near(*_comparable(name, want, have), tolerance)
            and not (name in ("label", "labels") and _is_tie(signature, at, want, have, wanted))
        ]
    return found


def _turned(wanted: Sequence[Any], got: Sequence[Any], width: int, tolerance: Tolerance) -> list[str]:
    rows = range(0, min(len(wanted), len(got)), width)
    cosines = [(row // width, _cosine(wanted[row : row + width], got[row : row + width])) for row in rows]
    return [
        f"embedding {row} points elsewhere (the cosine with what it should be is {cosine:.4f})"
        for row, cosine in cosines
        if not cosine >= tolerance.min_cosine
    ]


def _is_tie(signature: Signature, row: int, want: Any, have: Any, wanted: Mapping[str, Sequence[Any]]) -> bool:
    """Whether the full precision's own probabilities hardly tell these answers apart."""
    names = signature.labels or ()
    probabilities = dict(
        zip(names, list(wanted.get("probabilities", ()))[row * len(names) : (row + 1) * len(names)], strict=False)
    )
    want, have = _said(want), _said(have)
    try:
        if isinstance(want, list) and isinstance(have, list):
            changed = set(want).symmetric_difference(have)
            return all(abs(probabilities[name] - SEVERAL_THRESHOLD) < TIE for name in changed)
        return bool(abs(probabilities[want] - probabilities[have]) < TIE)
    except (KeyError, TypeError):  # no probabilities, or none that were kept
        return False


def _comparable(name: str, wanted: Any, got: Any) -> tuple[Any, Any]:
    wanted, got = _said(wanted), _said(got)
    if name == BEST_ONLY and isinstance(wanted, list) and isinstance(got, list):
        best = [[{key: found[key] for key in ("token", "score")} for found in one[:1]] for one in (wanted, got)]
        return best[0], best[1]
    return wanted, got


def _near(wanted: Any, got: Any, tolerance: Tolerance) -> bool:
    if isinstance(wanted, dict) and isinstance(got, dict):
        return wanted.keys() == got.keys() and all(_near(wanted[key], got[key], tolerance) for key in wanted)
    if isinstance(wanted, list) and isinstance(got, list):
        return len(wanted) == len(got) and all(
            _near(one, other, tolerance) for one, other in zip(wanted, got, strict=True)
        )
    if isinstance(wanted, float) and isinstance(got, int | float):
        return wanted == got or math.isclose(wanted, got, rel_tol=tolerance.rtol, abs_tol=tolerance.atol)
    return bool(wanted == got)


def _said(value: Any) -> Any:
    """What a JSON text says; anything else as it is."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _cosine(one: Sequence[Any], other: Sequence[Any]) -> float:
    """Not a number where a value is none."""
    try:
        product = math.fsum(a * b for a, b in zip(one, other, strict=True))
        lengths = math.hypot(*one) * math.hypot(*other)
    except (TypeError, ValueError):  # "NaN", as a canary writes it
        return math.nan
    return product / lengths if lengths else float(list(one) == list(other))


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "…"
