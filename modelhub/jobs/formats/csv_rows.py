"""CSV: RFC 4180 with a delimiter of one's own, UTF-8, the names of the columns in the first line."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import orjson

from modelhub.jobs.formats.rows import MAX_LINE_BYTES, FileRefused, Lines, Place, Row, size_of

_FORMULA = re.compile("'*[=+@\\t\\r\\n\uff1d\uff0b\uff0d\uff20-]")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_FATAL = ("unexpected end of data", "field larger than field limit")


class CsvReader:
    """A row that is ragged, wrongly quoted or no UTF-8 has a problem; the rows behind it are read as ever. A quote that
    is never closed ends the file, because nobody knows where the next row begins. Empty lines are no rows."""

    def __init__(self, source: BinaryIO, *, delimiter: str = ",", has_header: bool = True) -> None:
        csv.field_size_limit(MAX_LINE_BYTES)
        self.size = size_of(source)
        self._lines = Lines(source)
        self._delimiter = delimiter
        self._broken = ""  # what is wrong with the bytes of the record that is being read
        found = next(self._records(), None)
        if found is None:
            raise FileRefused("The file is empty: line 1 should name its columns.", line=1)
        begin, end, names, problem = found
        if problem:
            raise FileRefused(f"{problem}; it should name the columns.", line=begin.line)
        self._first = end if has_header else begin
        self._read_already = None if has_header else found  # from a pipe it comes once
        if not has_header:
            names = [str(number) for number in range(1, len(names) + 1)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise FileRefused(
                f"Line {begin.line} names the column {_listed(twice)} more than once; give each column its own name.",
                line=begin.line,
            )
        self.columns: tuple[str, ...] | None = tuple(names)
        self._names = tuple(names)

    def rows(self, begin: Place | None = None) -> Iterator[Row]:
        begin, first = begin or self._first, self._read_already
        if first is not None and begin == first[0] and self._lines.place == first[1]:
            yield self._row(*first)
        elif begin != self._lines.place:
            self._lines.go_to(begin)
        for record in self._records():
            yield self._row(*record)

    def _row(self, begin: Place, end: Place, values: list[str], problem: str) -> Row:
        names, count = self._names, len(self._names)
        if not problem and len(values) != count:
            problem = f"Line {begin.line} has {len(values)} fields and the header names {count}"
        fields: dict[str, Any] = dict(zip(names, values, strict=False))
        if len(fields) < count:
            fields |= dict.fromkeys(names[len(fields) :], "")
        return Row(begin, end, fields, f"{problem}." if problem else "")

    def _records(self) -> Iterator[tuple[Place, Place, list[str], str]]:
        """(begin, end, values, problem) of each record from here on."""
        records = csv.reader(self._decoded(), delimiter=self._delimiter, strict=True)
        while True:
            begin, self._broken, problem = self._lines.place, "", ""
            try:
                values = next(records)
            except StopIteration:
                return
            except csv.Error as error:
                told = str(error)
                if told.startswith(_FATAL):
                    told = "a quote is never closed" if told.startswith("unexpected") else "a field is too long"
                    raise FileRefused(
                        f"In the row that begins in line {begin.line} {told} (at most {MAX_LINE_BYTES >> 20} MiB a "
                        "field); correct it, or name another delimiter.",
                        line=begin.line,
                    ) from None
                values, problem = [], f"Line {begin.line} is no CSV: {told}"
            if values or problem:
                yield begin, self._lines.place, values, problem or self._broken

    def _decoded(self) -> Iterator[str]:
        while True:
            number = self._lines.place.line
            line = self._lines.read()
            if not line:
                return
            try:
                yield line.decode()
            except UnicodeDecodeError as error:
                self._broken = f"Line {number} is no UTF-8 (byte 0x{line[error.start]:02x} at {error.start + 1})"
                yield line.decode(errors="replace")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names[:5]) + (", …" if len(names) > 5 else "")


class CsvWriter:
    """Lists and objects are written as JSON, nothing as an empty field. guards: texts that a spreadsheet would take
    for a formula get a ' before them; see `guarded`."""

    def __init__(
        self,
        write: Callable[[bytes], None],
        columns: Sequence[str],
        delimiter: str,
        *,
        is_new: bool,
        guards: bool = True,
    ) -> None:
        self._write = write
        self._guards = guards
        self._columns = columns
        self._buffer = io.StringIO(newline="")
        self._writer = csv.writer(self._buffer, delimiter=delimiter, lineterminator="\n")
        if is_new:
            self._writer.writerow([guarded(name) for name in columns] if guards else columns)
            self._hand_on()

    def write(self, rows: Sequence[Row], added: Sequence[Mapping[str, Any]]) -> None:
        columns = self._columns
        for row, more in zip(rows, added, strict=True):
            values = {**row.fields, **more}
            fields = [_field(values.get(name)) for name in columns]
            self._writer.writerow([guarded(field) for field in fields] if self._guards else fields)
        self._hand_on()

    def flush(self) -> None:
        """Nothing is held."""

    def _hand_on(self) -> None:
        self._write(self._buffer.getvalue().encode(errors="replace"))
        self._buffer.seek(0)
        self._buffer.truncate()


def guarded(field: Any) -> Any:
    """A text with a ' before it where a spreadsheet would run it: it begins with one of = + - @, their wide forms, a
    tabulator or the end of a line, and is no number. One that has a ' there already gets another, so that taking
    the first one away gives back what was there. Numbers stay numbers."""
    if not isinstance(field, str) or not _FORMULA.match(field) or _NUMBER.fullmatch(field):
        return field
    return f"'{field}"


def _field(value: Any) -> Any:
    if value is None or (isinstance(value, (str, float, int)) and not isinstance(value, bool)):
        return value
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    text = orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    return text.strip('"') if text.startswith('"') else text
