"""JSON lines: one JSON value a line, an object with columns or a plain value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import orjson

from modelhub.jobs.formats.rows import FileRefused, Lines, Place, Row, size_of

PLAIN = "input"  # the column that a plain value becomes


class JsonReader:
    """A line that is no JSON is a row with a problem. Empty lines are no rows."""

    columns: tuple[str, ...] | None = None

    def __init__(self, source: BinaryIO) -> None:
        self.size = size_of(source)
        if self.size == 0:
            raise FileRefused("The file is empty: each line should hold a JSON value.", line=1)
        self._lines = Lines(source)

    def rows(self, begin: Place | None = None) -> Iterator[Row]:
        if begin is not None or self._lines.place.offset:
            self._lines.go_to(begin or Place(0, 1))
        while True:
            place = self._lines.place
            line = self._lines.read()
            if not line:
                return
            if line.isspace():
                continue
            end = self._lines.place
            try:
                value = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                yield Row(place, end, {}, f"Line {place.line} is no JSON: {error}.")
                continue
            if isinstance(value, dict):
                yield Row(place, end, value)
            else:
                yield Row(place, end, {PLAIN: value}, is_plain=True)


class JsonWriter:
    """An object a line: the columns of the row, then those added; what has no value is left out of those."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write

    def write(self, rows: Sequence[Row], added: Sequence[Mapping[str, Any]]) -> None:
        self._write(
            b"".join(
                _line(row.fields | {name: value for name, value in more.items() if value is not None})
                for row, more in zip(rows, added, strict=True)
            )
        )

    def flush(self) -> None:
        """Nothing is held."""


def _line(values: Mapping[str, Any]) -> bytes:
    return orjson.dumps(values, default=_said, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)


def _said(value: Any) -> Any:
    """What JSON has no type for: bytes as text, all else (decimals, durations) as it is written."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
