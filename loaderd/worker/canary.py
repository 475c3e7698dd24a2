"""The canary of a model: a question whose answer is known, asked at the load and again and again while it serves.

`ModelSpec.canary` is one of

  {"source": "metadata", "inputs": [items in plain form], "predictions": [what each must answer at least],
   "tolerance": number or None}
  {"source": "recorded", "inputs": [items in plain form] or None, "outputs": {name: [values]}, "shapes": {name: shape},
   "tolerance": {"rtol", "atol"}, "reproducible": bool, "precision": what it was recorded in, "" for the full one}

or None, and then it is recorded: the sample input is predicted twice. When the two differ by more than the
tolerance, the model is not reproducible, and later checks only ask that it answers.

Of metadata.json, a prediction is a label or value, or an object of which the given keys must match (nested objects
likewise). Numbers match within the tolerance, relative and absolute; texts and labels must be equal.

Of a recorded one, "outputs" holds the first MAX_VALUES values of each output, row by row: floats as numbers or as
"NaN", "Infinity", "-Infinity", texts as they are, JSON texts (entities) as what they say. A text longer than
MAX_TEXT_BYTES is null and is not compared; the shape always is.

Where the model or the recording is of a lower precision, loaderd/frameworks/precision.py says what counts as the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from loaderd.errors import CanaryFailed, InvalidInput, LoaderdError
from loaderd.frameworks.base import TOKENS, LoadedModel, Signature
from loaderd.frameworks.precision import LOWERED, too_far
from loaderd.oip import datatypes
from loaderd.protocol import ModelSpec
from loaderd.worker import simple
from loaderd.worker.batching import Arrays
from loaderd.worker.call import call

MAX_VALUES = 256  # of each output; an embedding is told apart by fewer
MAX_TEXT_BYTES = 4096
MAX_TOLD = 3  # differences that a message names
RTOL, ATOL = 1e-3, 1e-4
"""Wide enough for another processor, thread count or GPU, which sum up in another order; a wrong weight, another
file or a broken unit differ by far more."""


@dataclass(frozen=True, slots=True)
class Check:
    """What asking came to. reason: what differs, "" when nothing does. seconds: of the model's call.

    fault: what the model raised in place of an answer.
    """

    ok: bool
    seconds: float
    reason: str = ""
    fault: BaseException | None = None

    def to_message(self) -> dict[str, Any]:
        return {"ok": self.ok, "seconds": round(self.seconds, 6), "reason": self.reason}


class Canary:
    """The canary of one loaded model. Used by the compute thread only."""

    def __init__(self, spec: ModelSpec, model: LoadedModel) -> None:
        self._spec = spec
        self._model = model
        self._wanted = spec.canary

    def at_load(self) -> dict[str, Any]:
        """Asks for the first time; records the answer when none is known.

        Returns {"ok": True, "seconds", "recorded": canary to keep, or None when there was one}. Raises CanaryFailed
        when the answer is not the known one, and what the model raises.
        """
        if self._wanted is None:
            recorded, seconds = self._record()
            return {"ok": True, "seconds": round(seconds, 6), "recorded": recorded}
        check = self.check()
        if check.fault is not None and not isinstance(check.fault, InvalidInput):
            raise check.fault
        if not check.ok:
            raise CanaryFailed(
                f"{self._spec.model_id} is not loaded: {check.reason}; {self._advice()}.",
                model_id=self._spec.model_id,
                source=self._wanted.get("source"),
                difference=check.reason,
            )
        return {"ok": True, "seconds": round(check.seconds, 6), "recorded": None}

    def check(self) -> Check:
        """Asks, and compares the answer with the known one."""
        wanted = self._wanted
        assert wanted is not None, "at_load() comes first"
        began_at = time.perf_counter()
        try:
            inputs = self._inputs(wanted.get("inputs"))
            began_at = time.perf_counter()
            outputs = self._call(inputs)
        except Exception as fault:
            seconds = time.perf_counter() - began_at
            return Check(False, seconds, f"it does not answer its canary: {_told(fault)}", fault)
        seconds = time.perf_counter() - began_at
        try:
            differences = self._differences(wanted, outputs)
        except Exception as fault:  # an answer that JSON cannot say: a lone surrogate, a number past 64 bits
            return Check(False, seconds, f"its answer cannot be compared with the known one: {_told(fault)}")
        if not differences:
            return Check(True, seconds)
        more = f" and {len(differences) - MAX_TOLD} more" if len(differences) > MAX_TOLD else ""
        return Check(False, seconds, "it answers its canary wrongly: " + "; ".join(differences[:MAX_TOLD]) + more)

    def _record(self) -> tuple[dict[str, Any], float]:
        sample = self._model.sample_input()
        plain: list[Any] | None = simple.sample(sample, self._model.signature)["inputs"]
        try:
            inputs = self._inputs(plain)
            first = self._call(inputs)
        except InvalidInput:  # a sample that plain JSON cannot carry: the framework makes it again each time
            plain, inputs = None, sample
            first = self._call(inputs)
        began_at = time.perf_counter()
        second = self._call(inputs)
        seconds = time.perf_counter() - began_at
        recorded = {
            "source": "recorded",
            "inputs": plain,
            "outputs": {name: kept_values(array) for name, array in first.items()},
            "shapes": {name: list(array.shape) for name, array in first.items()},
            "tolerance": {"rtol": RTOL, "atol": ATOL},
            "reproducible": True,
            "precision": self._spec.precision,
        }
        recorded["reproducible"] = not _recorded_differences(recorded, second)
        self._wanted = recorded
        return recorded, seconds

    def _call(self, inputs: Arrays) -> Arrays:
        outputs = call(self._spec.model_id, self._model, inputs)
        outputs.pop(TOKENS, None)  # which no client sees
        return outputs

    def _inputs(self, items: list[Any] | None) -> Arrays:
        if items is None:
            return self._model.sample_input()
        return simple.parse(orjson.dumps({"inputs": items}), self._model.signature)

    def _differences(self, wanted: Mapping[str, Any], outputs: Arrays) -> list[str]:
        lowered = bool(self._spec.precision or wanted.get("precision"))
        signature = self._model.signature
        if wanted.get("source") == "metadata":
            plain = orjson.loads(
                orjson.dumps(simple.predictions(outputs, signature), option=orjson.OPT_SERIALIZE_NUMPY)
            )
            return _declared_differences(wanted, plain, lowered=lowered)
        if not wanted.get("reproducible", True):
            return []
        return _lowered_differences(wanted, outputs, signature) if lowered else _recorded_differences(wanted, outputs)

    def _advice(self) -> str:
        assert self._wanted is not None
        if self._wanted.get("source") == "metadata":
            return 'mend the model, or what "canary" in its metadata.json promises'
        return (
            "its files are those that answered otherwise before, so look at the versions of its libraries and at the "
            "machine's memory; if this answer is right, forget the recorded one (`manage.py forget_canary "
            f"{self._spec.model_id}`) and load it again"
        )


def kept_values(array: np.ndarray) -> list[Any]:
    """The first values of an output as JSON values that any database takes."""
    return [_kept(value) for value in array.ravel()[:MAX_VALUES]]


def _kept(value: Any) -> Any:
    if isinstance(value, np.floating):
        number = float(value)
        return number if math.isfinite(number) else {"nan": "NaN", "inf": "Infinity"}.get(str(number), "-Infinity")
    if isinstance(value, np.generic):
        return value.item()
    text = value.decode(errors="replace") if isinstance(value, bytes) else datatypes.as_text(value)
    if len(text.encode(errors="replace")) > MAX_TEXT_BYTES:
        return None
    # A null byte is the one character that JSON in Postgres refuses.
    return _said(text.replace("\0", "\ufffd"))


def _said(text: str) -> Any:
    """What a JSON array or object says; any other text as it is."""
    if text[:1] in ("[", "{"):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
    return text


def _recorded_differences(wanted: Mapping[str, Any], outputs: Arrays) -> list[str]:
    tolerance = wanted.get("tolerance") or {}
    rtol, atol = tolerance.get("rtol", RTOL), tolerance.get("atol", ATOL)
    differences = []
    for name, values in wanted["outputs"].items():
        if found := _unlike(wanted, outputs, name):
            differences.append(found)
            continue
        for at, (want, got) in enumerate(zip(values, kept_values(outputs[name]), strict=False)):
            if want is not None and (told := _difference(f"{name}[{at}]", want, got, rtol, atol, exact_keys=True)):
                differences.append(f"{told[0]}, recorded {told[1]}")
    return differences


def _lowered_differences(wanted: Mapping[str, Any], outputs: Arrays, signature: Signature) -> list[str]:
    unlike = {name: _unlike(wanted, outputs, name) for name in wanted["outputs"]}
    alike = {name: values for name, values in wanted["outputs"].items() if not unlike[name]}
    got = {name: kept_values(outputs[name]) for name in alike}
    widths = {name: math.prod(outputs[name].shape[1:]) for name in alike}
    return [found for found in unlike.values() if found] + too_far(signature, alike, got, widths)


def _unlike(wanted: Mapping[str, Any], outputs: Arrays, name: str) -> str:
    """Why an output cannot be compared value by value with the recorded one, or ""."""
    if name not in outputs:
        return f'there is no output "{name}" any more'
    shape = wanted.get("shapes", {}).get(name)
    if shape is not None and list(outputs[name].shape) != list(shape):
        return f"{name} has the shape {list(outputs[name].shape)}, recorded {list(shape)}"
    return ""


def _declared_differences(wanted: Mapping[str, Any], predictions: list[dict[str, Any]], *, lowered: bool) -> list[str]:
    tolerance = wanted.get("tolerance")
    rtol, atol = (RTOL, ATOL) if tolerance is None else (tolerance, tolerance)
    if lowered:
        rtol, atol = max(rtol, LOWERED.rtol), max(atol, LOWERED.atol)
    expected = wanted.get("predictions") or []
    if expected and len(expected) != len(predictions):
        return [f'"canary" in metadata.json has {len(predictions)} inputs and {len(expected)} predictions']
    differences = []
    for at, (want, prediction) in enumerate(zip(expected, predictions, strict=False)):
        got: Any = prediction if isinstance(want, dict) else prediction.get("label", prediction.get("output"))
        if found := _difference(f"prediction {at}", want, got, rtol, atol, exact_keys=False):
            differences.append(f"{found[0]}, and metadata.json promises {found[1]}")
    return differences


def _difference(
    where: str, want: Any, got: Any, rtol: float, atol: float, *, exact_keys: bool
) -> tuple[str, str] | None:
    """(what is there, what should be) at the first place where two JSON values differ, or None.

    exact_keys: an object may not have other keys than those wanted.
    """
    told = f"{where} is {_short(got)}", _short(want)
    if isinstance(want, dict) and isinstance(got, dict):
        if missing := [key for key in want if key not in got]:
            return f'{where} has no "{missing[0]}"', _short(want)
        if exact_keys and len(want) != len(got):
            return told
        parts = [(f"{where}.{key}", want[key], got[key]) for key in want]
    elif isinstance(want, list) and isinstance(got, list):
        if len(want) != len(got):
            return told
        parts = [(f"{where}[{at}]", *pair) for at, pair in enumerate(zip(want, got, strict=True))]
    else:
        return None if _equal(want, got, rtol, atol) else told
    for place, one, other in parts:
        if found := _difference(place, one, other, rtol, atol, exact_keys=exact_keys):
            return found
    return None


def _equal(want: Any, got: Any, rtol: float, atol: float) -> bool:
    if want == got:
        return True
    if isinstance(want, bool) or isinstance(got, bool) or not isinstance(want, int | float):
        return False
    return isinstance(got, int | float) and math.isclose(want, got, rel_tol=rtol, abs_tol=atol)


def _short(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= 80 else text[:77] + "…"


def _told(fault: BaseException) -> str:
    if isinstance(fault, LoaderdError):
        return fault.message.rstrip(".")
    return f"{type(fault).__name__}: {str(fault)[:500]}"
