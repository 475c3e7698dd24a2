"""Predicts the rows of a file one batch after another, in order, and keeps how far it came."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any, BinaryIO

from loaderd.errors import LoaderdError
from modelhub.jobs.answers import Answers, prefix_beside
from modelhub.jobs.asking import Asker, Stopped
from modelhub.jobs.checkpoint import Checkpoint
from modelhub.jobs.formats import FileRefused, open_reader, open_writer
from modelhub.jobs.formats.rows import Reader, Row, Writer
from modelhub.jobs.items import BadRow, Items
from modelhub.jobs.options import Options
from modelhub.jobs.pacing import MOST_BYTES
from modelhub.jobs.results import PartFile, Stream

SAVE_SECONDS = 0.5
MOST_PEEKED = 1000  # rows that are looked at for the first one that can be read


class RowRefused(LoaderdError):
    """A row cannot be predicted, and the first such row was to end it."""

    code = "row_refused"
    http_status = 400


@dataclass(slots=True)
class _Batch:
    """Rows that are predicted together. items: of those that can be; problems: index -> why the others cannot."""

    rows: list[Row]
    items: list[Any] = field(default_factory=list)
    problems: dict[int, str] = field(default_factory=dict)


class Plan:
    """What fits together: a file, a model's signature, and the options.

    Raises FileRefused with what to change.
    """

    def __init__(self, source: BinaryIO, kind: str, signature: Mapping[str, Any], options: Options) -> None:
        self.reader: Reader = open_reader(source, kind, options)
        self.options, self.signature = options, signature
        self.items = Items(signature, self.reader.columns, options.columns)

    def begun(self, model_id: str) -> tuple[Checkpoint, Iterator[Row]]:
        """The first checkpoint, and all rows. Raises FileRefused."""
        rows, own = self.reader.rows(), self.reader.columns
        if own is None:
            peeked = []
            for row in islice(rows, MOST_PEEKED):
                peeked.append(row)
                if not row.problem:
                    break
            own = tuple(peeked[-1].fields) if peeked else ()
            rows = chain(peeked, rows)
        prefix = prefix_beside(self.signature, self.options.scores, self.options.prefix, own)
        return Checkpoint(model_id, own=list(own), prefix=prefix), rows


@dataclass(slots=True)
class Scoring:
    """One file on its way. save: keeps a checkpoint for good; it may raise Stopped. on_rows: told after each batch."""

    plan: Plan
    asker: Asker
    target: PartFile | Stream
    target_kind: str
    save: Callable[[Checkpoint], None]
    concurrency: int = 1
    on_rows: Callable[[Checkpoint], None] = lambda checkpoint: None

    def run(self, checkpoint: Checkpoint | None) -> Checkpoint:
        """Goes on behind the checkpoint, or begins. The result is in its place when it returns.

        Raises FileRefused, RowRefused, MustWait, Stopped, OSError, or another LoaderdError; what came before is kept.
        """
        if checkpoint is None:
            checkpoint, rows = self.plan.begun(self.asker.model_id)
            self.save(checkpoint)
        elif checkpoint.is_complete:
            self.target.put_in_place(self.target_kind)
            return checkpoint
        else:
            rows = self.plan.reader.rows(checkpoint.place)
        self.target.open(checkpoint.written)
        try:
            course = _Course(self, checkpoint)
            try:
                self._go_on(course, rows)
            finally:
                checkpoint = course.keep()
            checkpoint = replace(checkpoint, is_complete=True)
            self.save(checkpoint)
            self.target.put_in_place(self.target_kind)
        finally:
            self.target.close()
        return checkpoint

    def _go_on(self, course: _Course, rows: Iterator[Row]) -> None:
        """Requests are under way while rows are read; their answers are written in order."""
        under_way: deque[tuple[_Batch, Future[Any]]] = deque()
        with ThreadPoolExecutor(self.concurrency, "asking") as threads:
            try:
                for batch in self._batches(rows):
                    under_way.append((batch, threads.submit(self.asker.predictions, batch.items)))
                    while len(under_way) > self.concurrency:
                        course.take(*under_way.popleft())
                    if self.asker.stop.is_set():
                        raise Stopped
            finally:
                # What was asked for before is in order and whole, also when a later row ended it.
                while under_way:
                    course.take(*under_way.popleft())

    def _batches(self, rows: Iterator[Row]) -> Iterator[_Batch]:
        batch, size, wanted = _Batch([]), 0, self.asker.pace.rows
        try:
            for row in rows:
                try:
                    item = self.plan.items.item(row)
                    size += _size(item)
                    batch.items.append(item)
                except BadRow as error:
                    batch.problems[len(batch.rows)] = str(error)
                batch.rows.append(row)
                if len(batch.rows) >= wanted or size >= MOST_BYTES:
                    yield batch
                    batch, size, wanted = _Batch([]), 0, self.asker.pace.rows
        except FileRefused:
            if batch.rows:  # they lie before what cannot be read
                yield batch
            raise
        if batch.rows:
            yield batch


class _Course:
    """What was written so far, and how far it is kept."""

    def __init__(self, scoring: Scoring, checkpoint: Checkpoint) -> None:
        plan = scoring.plan
        self._scoring, self._checkpoint = scoring, checkpoint
        self._answers = Answers(plan.signature, plan.options.scores, checkpoint.prefix)
        self._own = set(checkpoint.own)
        self._is_open = plan.reader.columns is None and scoring.target_kind != "jsonl"
        self._is_json = plan.reader.columns is None
        self._writer: Writer = open_writer(
            scoring.target,
            scoring.target_kind,
            plan.reader,
            checkpoint.own,
            self._answers.columns,
            plan.options,
            is_new=checkpoint.written == 0,
        )
        self._kept = checkpoint
        self._kept_at = time.monotonic()
        self._is_broken = False  # a batch failed: those behind it are not written
        self._is_sound = True

    def take(self, batch: _Batch, asked: Future[Any]) -> None:
        """Writes a batch once its answers are there. After one that failed nothing is written any more."""
        if self._is_broken:
            asked.cancel()
            return
        try:
            answers = iter(asked.result())
            rows, added, failed, refusal = [], [], 0, ""
            for index, row in enumerate(batch.rows):
                problem = batch.problems.get(index, "")
                if not problem:
                    answer = next(answers)
                    problem = answer.message if isinstance(answer, LoaderdError) else self._misfit(row)
                if problem:
                    if self._scoring.plan.options.strict:
                        refusal = _at(row, problem)
                        break
                    failed += 1
                    added.append(self._answers.of_error(_at(row, problem)))
                else:
                    added.append(self._answers.of(answer))
                rows.append(row)
            if rows:
                self._write(rows, added)
                done = self._checkpoint
                self._checkpoint = done.moved(rows[-1].end, rows=done.rows + len(rows), failed=done.failed + failed)
            if refusal:
                raise RowRefused(refusal)
        except BaseException:
            self._is_broken = True
            raise
        if time.monotonic() - self._kept_at >= SAVE_SECONDS:
            self.keep()
        self._scoring.on_rows(self._checkpoint)

    def _write(self, rows: list[Row], added: list[dict[str, Any]]) -> None:
        self._is_sound = False
        self._writer.write(rows, added)
        self._is_sound = True

    def keep(self) -> Checkpoint:
        """Syncs what was written and keeps the checkpoint that says so. Where a write failed, what was kept before
        holds: the file may end within a row."""
        if self._checkpoint is not self._kept and self._is_sound:
            self._writer.flush()
            self._checkpoint = replace(self._checkpoint, written=self._scoring.target.sync())
            self._scoring.save(self._checkpoint)
            self._kept = self._checkpoint
        self._kept_at = time.monotonic()
        return self._checkpoint

    def _misfit(self, row: Row) -> str:
        """Why a JSON object has no place in the result: a key of its own where the columns are given, or one that the
        result adds."""
        if not self._is_json:
            return ""
        try:
            self._answers.require_none_of(row.fields)
        except FileRefused as error:
            return error.message
        more = [name for name in row.fields if name not in self._own] if self._is_open else []
        return f'it has "{more[0]}", which the first row has not, so the result has no column for it' if more else ""


def _at(row: Row, problem: str) -> str:
    where = f"Line {row.place.line}"
    return problem if problem.startswith(where) else f"{where}: {problem}"


def _size(item: Any) -> int:
    """About the bytes of an item."""
    if isinstance(item, (str, bytes)):
        return len(item)
    if isinstance(item, dict):
        return sum(_size(value) for value in item.values())
    if isinstance(item, list):
        return 12 * len(item) if not item or not isinstance(item[0], (list, str)) else sum(_size(one) for one in item)
    return 12
