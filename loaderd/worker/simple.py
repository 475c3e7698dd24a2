"""The plain form of a prediction: {"inputs": [texts or rows]} in, labels or values out, by the signature.

A model with one input takes its values directly; one with several takes an object per item,
{"<input>": value}. Both take objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from loaderd.errors import InvalidInput
from loaderd.frameworks.base import Signature, TensorSpec
from loaderd.oip import datatypes
from loaderd.oip.request import batch_size, fitted, read_json


def parse(body: bytes | bytearray, signature: Signature) -> dict[str, np.ndarray]:
    """The batch that the body holds; raises InvalidInput."""
    items = read_json(body).get("inputs")
    if type(items) is not list or not items:
        raise InvalidInput(f'The request needs "inputs": an array of at least one {_wanted(signature)}.')
    specs = signature.inputs
    if len(specs) == 1:  # nearly always, and nearly always without names
        spec = specs[0]
        first = items[0]
        if type(first) is str and len(spec.shape) == 1 and spec.datatype == "BYTES":
            if {*map(type, items)} == _ONLY_STR:
                texts = np.empty(len(items), dtype=object)
                texts[:] = items
                return {spec.name: texts}
        elif dict not in {*map(type, items)}:
            return {spec.name: _array(spec, items)}
    columns = {spec.name: _column(spec, items, signature) for spec in signature.inputs}
    arrays = {spec.name: _array(spec, columns[spec.name]) for spec in signature.inputs}
    batch_size(arrays)
    return arrays


_ONLY_STR = {str}


def _wanted(signature: Signature) -> str:
    if signature.takes_text:
        return "text"
    if len(signature.inputs) == 1:
        spec = signature.inputs[0]
        return f"{spec.datatype} value of shape {list(spec.shape[1:])}"
    return "object with the keys " + ", ".join(f'"{spec.name}"' for spec in signature.inputs)


def _column(spec: TensorSpec, items: list[Any], signature: Signature) -> list[Any]:
    """What each item gives for one input."""
    several = len(signature.inputs) > 1
    column = []
    for index, item in enumerate(items):
        if isinstance(item, dict):
            if spec.name not in item:
                raise InvalidInput(f'Item {index} lacks "{spec.name}"; each must be one {_wanted(signature)}.')
            item = item[spec.name]
        elif several:
            raise InvalidInput(f"Item {index} must be one {_wanted(signature)}.")
        column.append(item)
    return column


def _array(spec: TensorSpec, column: list[Any]) -> np.ndarray:
    if spec.datatype == "BYTES" and len(spec.shape) == 1:
        for index, item in enumerate(column):
            if not isinstance(item, str):
                raise InvalidInput(f"Item {index} must be a text, not {orjson.dumps(item)[:40].decode()}.")
    return fitted(datatypes.from_json(spec.name, spec.datatype, _shape_of(column), column), spec)


def _shape_of(column: list[Any]) -> tuple[int, ...]:
    """The shape of a nested list, judged by its first elements; `from_json` checks the rest."""
    shape = []
    level: Any = column
    while isinstance(level, list):
        shape.append(len(level))
        level = level[0] if level else None
    return tuple(shape)


def predictions(outputs: Mapping[str, np.ndarray], signature: Signature) -> list[dict[str, Any]]:
    """One JSON object per item, for orjson with OPT_SERIALIZE_NUMPY.

    A classifier gives label, score and scores (score and scores only when it knows probabilities or has a
    decision function), and labels when several may apply; one that answers several questions gives a list
    of labels. A model with one output gives {"output": value}, any other {"outputs": {name: value}}.
    """
    if "label" in outputs or (signature.labels and "probabilities" in outputs):
        return _labelled(outputs, signature)
    columns = {spec.name: _values(outputs[spec.name], spec) for spec in signature.outputs}
    if len(columns) == 1:
        return [{"output": value} for value in next(iter(columns.values()))]
    return [{"outputs": dict(zip(columns, row, strict=True))} for row in zip(*columns.values(), strict=True)]


def _labelled(outputs: Mapping[str, np.ndarray], signature: Signature) -> list[dict[str, Any]]:
    labels, rows = signature.labels, _score_rows(outputs, signature)
    given = _label_values(outputs["label"]) if "label" in outputs else None
    result: list[dict[str, Any]]
    if labels is None or rows is None:
        result = [{"label": label} for label in given or []]
    else:
        if given is None:
            given = [labels[index] for index in rows.argmax(axis=1).tolist()]
        width, flat = len(labels), list(rows.ravel())  # of numpy's own numbers, which JSON says in their precision
        result = []
        for index, label in enumerate(given):
            scores = dict(zip(labels, flat[index * width : (index + 1) * width], strict=True))
            result.append({"label": label, "score": scores.get(label), "scores": scores})
    if "labels" in outputs:  # a JSON list per item
        for answer, several in zip(result, outputs["labels"], strict=True):
            answer["labels"] = _text_value(several)
    return result


def _label_values(labels: np.ndarray) -> list[Any]:
    """Texts; lists of them for a model that answers several questions at once."""
    if labels.ndim == 1:
        return datatypes.texts(labels)
    return [datatypes.texts(row) for row in labels]


def _score_rows(outputs: Mapping[str, np.ndarray], signature: Signature) -> np.ndarray | None:
    """A column per label: probabilities, or the decision function's values; None without such."""
    rows, labels = outputs.get("scores"), signature.labels or ()
    if "probabilities" in outputs:
        return outputs["probabilities"]
    if rows is not None and rows.ndim == 1 and len(labels) == 2:
        return np.stack([-rows, rows], axis=1)  # of two classes the function is for the second, its negative the first
    # One column per pair of classes, as some support vector machines have it, tells nothing of a single one.
    return rows if rows is not None and rows.shape[1:] == (len(labels),) else None


def _values(array: np.ndarray, spec: TensorSpec) -> list[Any]:
    if spec.datatype != "BYTES":
        return list(array)
    return (
        [_text_value(element) for element in array]
        if array.ndim == 1
        else [[_text_value(element) for element in row.ravel()] for row in array]
    )


def _text_value(element: Any) -> Any:
    """The text, or what it says when it is a JSON array or object (entities, for example)."""
    text = datatypes.as_text(element)
    if text[:1] in ("[", "{"):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
    return text


def sample(inputs: Mapping[str, np.ndarray], signature: Signature) -> dict[str, Any]:
    """The request in plain form that stands for these arrays, as JSON values."""
    columns = [
        _texts(inputs[spec.name].tolist()) if spec.datatype == "BYTES" else list(inputs[spec.name])
        for spec in signature.inputs
    ]
    if len(columns) == 1:
        items: list[Any] = columns[0]
    else:
        names = [spec.name for spec in signature.inputs]
        items = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    plain: dict[str, Any] = orjson.loads(orjson.dumps({"inputs": items}, option=orjson.OPT_SERIALIZE_NUMPY))
    return plain


def _texts(values: list[Any]) -> list[Any]:
    """Nested lists of texts, as a row of categories is one."""
    return [_texts(value) if isinstance(value, list) else datatypes.as_text(value) for value in values]
