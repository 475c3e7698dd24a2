"""What the formats share: a row with its place in the file, who reads rows and who writes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, Protocol

from loaderd.errors import LoaderdError

MAX_LINE_BYTES = 16 << 20
_BOM = b"\xef\xbb\xbf"


class FileRefused(LoaderdError):
    """The file cannot be read (further), or does not fit the model; the message names the line where there is one.

    param="columns": those that hold the input have to be named, or named otherwise.
    """

    code = "file_refused"
    http_status = 400


class Place(NamedTuple):
    """Where in a file something begins. offset: in bytes; in a Parquet file, rows. line: counted from 1."""

    offset: int
    line: int


@dataclass(slots=True)
class Row:
    """One row of the input.

    place: where it begins. end: where the next one does. fields: its columns; {"input": value} of a plain JSON value.
    problem: why it cannot be used; "" when it can. origin: its batch and index there, in a Parquet file.
    """

    place: Place
    end: Place
    fields: dict[str, Any]
    problem: str = ""
    is_plain: bool = False
    origin: tuple[Any, int] | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """An added column. kind: "text", "number", "whole", "truth", "numbers", "wholes", or "json"."""

    name: str
    kind: str


class Reader(Protocol):
    """columns: names that all rows share, known before the first row; None where each row has its own.
    size: the offset behind the last row; None where nobody knows.
    """

    columns: tuple[str, ...] | None
    size: int | None

    def rows(self, begin: Place | None = None) -> Iterator[Row]:
        """The rows from `begin` (a row's `end`) on. Raises FileRefused where the file cannot be read any further."""
        ...


class Writer(Protocol):
    def write(self, rows: Sequence[Row], added: Sequence[Mapping[str, Any]]) -> None:
        """Appends the rows, each with the values of its added columns. Raises OSError."""
        ...

    def flush(self) -> None:
        """Hands on what it still holds."""
        ...


class Lines:
    """The lines of a file as bytes, each at most MAX_LINE_BYTES, with the place where the next one begins."""

    def __init__(self, source: BinaryIO) -> None:
        self.place = Place(0, 1)
        self._source = source

    def go_to(self, begin: Place) -> None:
        self._source.seek(begin.offset)
        self.place = begin

    def read(self) -> bytes:
        """The next line with its end; b"" after the last one. Raises FileRefused."""
        line = self._source.readline(MAX_LINE_BYTES + 1)
        if len(line) > MAX_LINE_BYTES:
            raise FileRefused(
                f"Line {self.place.line} has more than {MAX_LINE_BYTES >> 20} MiB; is it a file of another format?",
                line=self.place.line,
            )
        length = len(line)
        if self.place.offset == 0:
            line = line.removeprefix(_BOM)
            if not line and length:  # a byte order mark and nothing else
                line = b"\n"
        self.place = Place(self.place.offset + length, self.place.line + 1)
        return line


def size_of(source: BinaryIO) -> int | None:
    """Bytes of a file; None of a pipe."""
    if not source.seekable():
        return None
    here = source.tell()
    size = source.seek(0, 2)
    source.seek(here)
    return size
