"""CSV, JSON lines and Parquet: read row by row from any place on, written so that what was synced survives a crash."""

from __future__ import annotations

from pathlib import PurePath
from typing import BinaryIO, Protocol

from modelhub.jobs.formats.csv_rows import CsvReader, CsvWriter
from modelhub.jobs.formats.json_rows import JsonReader, JsonWriter
from modelhub.jobs.formats.rows import Column, FileRefused, Reader, Writer
from modelhub.jobs.options import Options

CSV, JSONL, PARQUET = FORMATS = ("csv", "jsonl", "parquet")
_SUFFIXES = {".csv": CSV, ".jsonl": JSONL, ".ndjson": JSONL, ".parquet": PARQUET, ".pq": PARQUET}
MEDIA_TYPES = {CSV: "text/csv", JSONL: "application/x-ndjson", PARQUET: "application/vnd.apache.parquet"}


def format_of(name: str) -> str | None:
    """The format that a file's name tells; None when it tells none."""
    return _SUFFIXES.get(PurePath(name).suffix.lower())


def open_reader(source: BinaryIO, kind: str, options: Options) -> Reader:
    """A reader of the rows. source: at its beginning; a Parquet file must be seekable. Raises FileRefused."""
    if kind == CSV:
        return CsvReader(source, delimiter=options.delimiter, has_header=options.header)
    if kind == JSONL:
        return JsonReader(source)
    from modelhub.jobs.formats.parquet_rows import ParquetReader  # its library takes 40 MiB

    return ParquetReader(source)


class Target(Protocol):
    """Where a writer's bytes go; see `modelhub.jobs.results`."""

    def write(self, data: bytes) -> None: ...


def open_writer(target: Target, kind: str, reader: Reader, own: list[str], added: list[Column], options: Options,
                *, is_new: bool) -> Writer:  # fmt: skip
    """A writer of the input's columns and the added ones. own: the input's columns.

    is_new: False where the target holds rows already, and so what begins a file.
    """
    if kind == CSV:
        return CsvWriter(
            target.write,
            [*own, *(column.name for column in added)],
            options.delimiter,
            is_new=is_new,
            guards=options.guard_formulas,
        )
    if kind == JSONL:
        return JsonWriter(target.write)
    from modelhub.jobs.formats.parquet_rows import PartWriter

    return PartWriter(target.write, reader, own, added, is_new=is_new)


__all__ = [
    "CSV",
    "FORMATS",
    "MEDIA_TYPES",
    "PARQUET",
    "FileRefused",
    "format_of",
    "open_reader",
    "open_writer",
]
