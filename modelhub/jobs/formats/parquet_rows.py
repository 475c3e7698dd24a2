"""Parquet, by Arrow: row groups are read batch by batch, and whole columns go from file to file untouched.

A Parquet file that was not ended cannot be read or gone on with, so rows are first written as messages of Arrow's
stream, which can be cut off behind any of them, and made a Parquet file of at the end, again batch by batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from modelhub.jobs.formats.rows import Column, FileRefused, Place, Reader, Row

READ_ROWS = 1024
GROUP_ROWS = 64 * 1024
_TYPES = {
    "text": pa.string(),
    "number": pa.float64(),
    "whole": pa.int64(),
    "truth": pa.bool_(),
    "numbers": pa.list_(pa.float64()),
    "wholes": pa.list_(pa.int64()),
    "json": pa.string(),
}
# Arrow raises its own classes, and KeyError, TypeError or OSError of its C++ side, for a file that is none.
_UNREADABLE = (pa.ArrowException, OSError, KeyError, TypeError, ValueError)


class ParquetReader:
    """Rows keep their Arrow batch, so that a Parquet result has the input's own types."""

    def __init__(self, source: BinaryIO) -> None:
        try:
            self._file = pq.ParquetFile(source)
            self.schema = self._file.schema_arrow
        except _UNREADABLE as error:
            raise FileRefused(f"The file is no Parquet file: {_short(error)}.") from None
        names = self.schema.names
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise FileRefused(f"The file has the column {', '.join(twice[:5])} more than once.")
        if not names:
            raise FileRefused("The file has no columns.")
        nested = [field.name for field in self.schema if "dictionary<" in str(_plain(field.type))]
        if nested:
            raise FileRefused(f"The column {nested[0]} holds dictionaries within other values; write it plainly.")
        self.columns: tuple[str, ...] | None = tuple(names)
        self._names = tuple(names)
        self.size: int | None = int(self._file.metadata.num_rows)

    def rows(self, begin: Place | None = None) -> Iterator[Row]:
        number = begin.offset if begin else 0
        try:
            for batch in self._batches(number):
                columns = [_values(column) for column in batch.columns]
                for index, values in enumerate(zip(*columns, strict=True)):
                    place, number = Place(number, number + 1), number + 1
                    fields = dict(zip(self._names, values, strict=True))
                    yield Row(place, Place(number, number + 1), fields, origin=(batch, index))
        except _UNREADABLE as error:
            raise FileRefused(f"The file cannot be read behind row {number}: {_short(error)}.", line=number) from None

    def _batches(self, skipped: int) -> Iterator[pa.RecordBatch]:
        """Whole row groups are passed over without being read."""
        metadata, first = self._file.metadata, 0
        while first < metadata.num_row_groups and skipped >= metadata.row_group(first).num_rows:
            skipped -= metadata.row_group(first).num_rows
            first += 1
        groups = list(range(first, metadata.num_row_groups))
        if not groups:
            return
        for batch in self._file.iter_batches(READ_ROWS, row_groups=groups):
            if skipped >= batch.num_rows:
                skipped -= batch.num_rows
                continue
            yield batch.slice(skipped)
            skipped = 0


def _values(column: pa.Array) -> list[Any]:
    """As Python's values; what Python has no type for (times of nanoseconds) as text."""
    try:
        values: list[Any] = column.to_pylist()
    except (pa.ArrowException, ValueError):
        values = column.cast(pa.string()).to_pylist()
    return values


def _short(error: BaseException) -> str:
    return str(error).strip().rstrip(".").splitlines()[0][:200] or type(error).__name__


class PartWriter:
    """Writes messages of Arrow's stream: the schema, then a batch at each flush or every READ_ROWS rows."""

    def __init__(
        self,
        write: Callable[[bytes], None],
        reader: Reader,
        own: Sequence[str],
        added: Sequence[Column],
        *,
        is_new: bool,
    ) -> None:
        self._write = write
        self._own, self._added = list(own), list(added)
        arrow = reader.schema if isinstance(reader, ParquetReader) else None
        fields = [pa.field(name, pa.string() if arrow is None else _plain(arrow.field(name).type)) for name in own]
        fields += [pa.field(column.name, _TYPES[column.kind]) for column in added]
        self._schema = pa.schema(fields)
        self._rows: list[Row] = []
        self._more: list[Mapping[str, Any]] = []
        if is_new:
            write(self._schema.serialize().to_pybytes())

    def write(self, rows: Sequence[Row], added: Sequence[Mapping[str, Any]]) -> None:
        self._rows += rows
        self._more += added
        if len(self._rows) >= READ_ROWS:
            self.flush()

    def flush(self) -> None:
        if not self._rows:
            return
        own = self._own_columns()
        more = [_array([values.get(column.name) for values in self._more], column.kind) for column in self._added]
        batch = pa.RecordBatch.from_arrays([*own, *more], schema=self._schema)
        self._write(batch.serialize().to_pybytes())
        self._rows, self._more = [], []

    def _own_columns(self) -> list[pa.Array]:
        if self._rows[0].origin is None:
            return [pa.array([_text(row.fields.get(name)) for row in self._rows], pa.string()) for name in self._own]
        table = pa.Table.from_batches(list(self._slices())).combine_chunks()
        columns = [table.column(name).chunk(0) for name in self._own]
        return [one.dictionary_decode() if pa.types.is_dictionary(one.type) else one for one in columns]

    def _slices(self) -> Iterator[pa.RecordBatch]:
        """The rows' own batches, cut to runs of rows that follow one another."""
        run: tuple[Any, int, int] | None = None
        for row in self._rows:
            assert row.origin is not None
            batch, index = row.origin
            if run is not None and run[0] is batch and run[1] + run[2] == index:
                run = (batch, run[1], run[2] + 1)
                continue
            if run is not None:
                yield run[0].slice(run[1], run[2])
            run = (batch, index, 1)
        if run is not None:
            yield run[0].slice(run[1], run[2])


def _plain(kind: pa.DataType) -> pa.DataType:
    """A column of categories becomes one of their values: Arrow's messages hold no dictionaries by themselves."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _text(value: Any) -> str | None:
    """Texts as they are, all else as JSON."""
    if value is None or isinstance(value, str):
        return value
    return orjson.dumps(value, default=str).decode()


def _array(values: list[Any], kind: str) -> pa.Array:
    if kind in ("text", "json"):
        return pa.array([_text(value) for value in values], pa.string())
    return pa.array(values, _TYPES[kind])


def make_parquet(part: Path, target: BinaryIO) -> None:
    """Makes a Parquet file of what a PartWriter wrote. Raises OSError."""
    with part.open("rb") as source, pa.PythonFile(source, "r") as stream:
        schema = pa.ipc.read_schema(pa.ipc.read_message(stream))
        with pq.ParquetWriter(target, schema) as writer:
            held: list[pa.RecordBatch] = []
            for batch in _messages(stream, schema):
                held.append(batch)
                if sum(one.num_rows for one in held) >= GROUP_ROWS or sum(one.nbytes for one in held) >= 64 << 20:
                    writer.write_table(pa.Table.from_batches(held, schema))
                    held = []
            if held:
                writer.write_table(pa.Table.from_batches(held, schema))


def _messages(stream: pa.NativeFile, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    while True:
        try:
            message = pa.ipc.read_message(stream)
        except EOFError:
            return
        yield pa.ipc.read_record_batch(message, schema)
