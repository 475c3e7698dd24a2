"""From a row to what the model is asked, by the model's signature and the columns that were named."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import orjson

from modelhub.jobs.formats.json_rows import PLAIN
from modelhub.jobs.formats.rows import FileRefused, Row

TEXT = "text"  # the column that a model of texts takes where nobody names one


class BadRow(Exception):
    """This row cannot be predicted; the message says why. Others can."""


class Items:
    """Makes items of rows. columns: those that all rows share, or None. named: those that the options name.

    Raises FileRefused when the file's columns do not fit the model.
    """

    def __init__(self, signature: Mapping[str, Any], columns: Sequence[str] | None, named: Sequence[str]) -> None:
        self._inputs: list[Mapping[str, Any]] = list(signature["inputs"])
        self._named = tuple(named)
        if columns is not None:
            missing = [name for name in named if name not in columns]
            if missing:
                raise FileRefused(f"The file has no column {_told(missing)}; it has {_told(columns)}.", param="columns")
            self._named = self._named or self._found_among(columns)
        if len(self._inputs) > 1 and self._named not in ((), (PLAIN,)):
            wanted = [spec["name"] for spec in self._inputs]
            if set(self._named) != set(wanted):
                raise FileRefused(f"The model takes {_told(wanted)}: name no columns, or these.", param="columns")

    def item(self, row: Row) -> Any:
        """What is asked for this row. Raises BadRow."""
        if row.problem:
            raise BadRow(row.problem)
        try:
            return self._several(row) if len(self._inputs) > 1 else self._one(row)
        except BadRow as error:
            raise BadRow(f"Line {row.place.line}: {error}") from None

    def _found_among(self, columns: Sequence[str]) -> tuple[str, ...]:
        """The columns that hold the input, where nobody named them."""
        names = [spec["name"] for spec in self._inputs]
        if len(names) > 1:
            if set(names) <= set(columns):
                return tuple(names)
            if PLAIN in columns:
                return (PLAIN,)
            missing = [name for name in names if name not in columns]
            raise FileRefused(f"The model takes {_told(names)} and the file has no column {_told(missing)}.")
        (spec,) = self._inputs
        for name in (names[0], *([TEXT] if _is_text(spec) else []), PLAIN):
            if name in columns:
                return (name,)
        width = _width(spec)
        if width is None or len(columns) == 1:
            return (columns[0],)
        if width in (-1, len(columns)):
            return tuple(columns)
        raise FileRefused(
            f"The model takes {width} values a row and the file has {len(columns)} columns; name those that hold them "
            "(--column, columns), in order, or one that holds them as a JSON array.",
            param="columns",
        )

    def _one(self, row: Row) -> Any:
        (spec,) = self._inputs
        named = self._named or self._of_object(row, spec)
        missing = [name for name in named if name not in row.fields]
        if missing:
            raise BadRow(f"it has no {_told(missing)}.")
        if len(named) == 1 and not (_width(spec) == 1 and not _is_array(row.fields[named[0]])):
            return _value(spec, named[0], row.fields[named[0]])
        return [_scalar(spec["datatype"], name, row.fields[name]) for name in named]

    def _of_object(self, row: Row, spec: Mapping[str, Any]) -> tuple[str, ...]:
        """Where a JSON object of its own shape has the input."""
        for name in (spec["name"], *([TEXT] if _is_text(spec) else []), PLAIN):
            if name in row.fields:
                return (name,)
        if len(row.fields) == 1:
            return tuple(row.fields)
        raise BadRow(f'it has neither "{spec["name"]}" nor "{PLAIN}"; name the key that holds the input.')

    def _several(self, row: Row) -> dict[str, Any]:
        fields: Any = row.fields
        if self._named == (PLAIN,) or (not self._named and PLAIN in fields and len(self._inputs) > 1):
            fields = _parsed(PLAIN, fields[PLAIN])
            if not isinstance(fields, dict):
                raise BadRow(f'"{PLAIN}" must be an object with the model\'s inputs.')
        missing = [spec["name"] for spec in self._inputs if spec["name"] not in fields]
        if missing:
            raise BadRow(f"it has no {_told(missing)}.")
        return {spec["name"]: _value(spec, spec["name"], fields[spec["name"]]) for spec in self._inputs}


def _is_text(spec: Mapping[str, Any]) -> bool:
    return spec["datatype"] == "BYTES" and len(spec["shape"]) == 1


def _width(spec: Mapping[str, Any]) -> int | None:
    """Values of a row; -1: any number; None: one value, or more than a row of them."""
    return int(spec["shape"][1]) if len(spec["shape"]) == 2 else None


def _is_array(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and value.lstrip().startswith("["))


def _value(spec: Mapping[str, Any], name: str, value: Any) -> Any:
    if len(spec["shape"]) == 1:
        return _scalar(spec["datatype"], name, value)
    array = _parsed(name, value)
    if not isinstance(array, list):
        raise BadRow(f'"{name}" must be an array, not {_shown(value)}.')
    width = _width(spec)
    if width is not None and width >= 0 and len(array) != width:
        raise BadRow(f'"{name}" has {len(array)} values and the model takes {width}.')
    return array


def _parsed(name: str, value: Any) -> Any:
    """What a column of text holds as JSON; other values as they are."""
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise BadRow(f'"{name}" is no JSON ({error}): {_shown(value)}.') from None


def _scalar(datatype: str, name: str, value: Any) -> Any:
    if datatype == "BYTES":
        if isinstance(value, str):
            return value
        raise BadRow(f'"{name}" must be a text, not {_shown(value)}.')
    if value is None or value == "":
        raise BadRow(f'"{name}" has no value.')
    if datatype == "BOOL":
        return _truth(name, value)
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Decimal)):
        raise BadRow(f'"{name}" must be a number, not {_shown(value)}.')
    try:
        number = float(value) if datatype.startswith(("FP", "BF")) else int(value)
    except (ValueError, OverflowError):
        raise BadRow(f'"{name}" must be a number, not {_shown(value)}.') from None
    if not math.isfinite(number):
        raise BadRow(f'"{name}" must be a finite number, not {_shown(value)}.')
    return number


def _truth(name: str, value: Any) -> bool:
    known = {"true": True, "1": True, "false": False, "0": False}
    word = str(value).strip().lower()
    if word not in known:
        raise BadRow(f'"{name}" must be true or false, not {_shown(value)}.')
    return known[word]


def _shown(value: Any) -> str:
    text = orjson.dumps(value, default=str).decode()
    return text if len(text) <= 40 else f"{text[:39]}…"


def _told(names: Sequence[str]) -> str:
    shown = ", ".join(f'"{name}"' for name in names[:8])
    return f"{shown}, … ({len(names)})" if len(names) > 8 else shown
