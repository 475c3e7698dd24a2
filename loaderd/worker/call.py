"""One call of the model, its answer checked against what its signature promises."""

from __future__ import annotations

from loaderd.errors import PredictionFailed
from loaderd.frameworks.base import TOKENS, LoadedModel
from loaderd.oip import datatypes
from loaderd.worker.batching import Arrays


def call(model_id: str, model: LoadedModel, inputs: Arrays) -> Arrays:
    """The outputs that the signature promises, in its datatypes, and the hidden one.

    Raises PredictionFailed when one is amiss, and whatever the model raises.
    """
    items = len(next(iter(inputs.values())))
    outputs = model.predict(inputs)
    checked = {}
    for spec in model.signature.outputs:
        if spec.name not in outputs:
            raise PredictionFailed(f'{model_id} gave no output "{spec.name}", which its signature promises.')
        array = datatypes.as_datatype(outputs[spec.name], spec.datatype)
        if len(array) != items:
            raise PredictionFailed(
                f'{model_id} gave {len(array)} rows of "{spec.name}" for {items} items; '
                "its framework must answer each item with one row."
            )
        checked[spec.name] = array
    if TOKENS in outputs:
        checked[TOKENS] = outputs[TOKENS]
    return checked


def describe(error: BaseException) -> str:
    """The exception's class and its text, shortened; what is no Unicode in it (half a surrogate pair) is replaced."""
    text = str(error).encode(errors="replace").decode()
    return f"{type(error).__name__}: {text[:1000]}" if text else type(error).__name__
