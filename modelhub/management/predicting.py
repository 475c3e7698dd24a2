"""`manage.py predict --file`: predicts a file here and now, with its progress in sight, and goes on after a crash."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from django.core.management.base import CommandError
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from loaderd.errors import LoaderdError
from modelhub.inference import client
from modelhub.jobs import pinning
from modelhub.jobs.asking import Asker, MustWait, Stopped
from modelhub.jobs.checkpoint import Checkpoint, CheckpointFile
from modelhub.jobs.formats import PARQUET, format_of
from modelhub.jobs.options import Options
from modelhub.jobs.pacing import Pace
from modelhub.jobs.results import PartFile, Stream
from modelhub.jobs.scoring import Plan, Scoring

PIPE = "-"
INTERRUPTED = 130


class FilePrediction:
    """One run of the command. source, target: paths, or "-". Wrong usage ends with status 2."""

    def __init__(
        self, source: str, target: str, source_kind: str | None, target_kind: str | None, options: Options
    ) -> None:
        self.source, self.target, self.options = source, target, options
        self.source_kind = source_kind or _kind_of(source, None, "--input-format")
        self.target_kind = target_kind or _kind_of(target, self.source_kind if target == PIPE else None, "--out-format")
        if PARQUET in (self.source_kind if source == PIPE else "", self.target_kind if target == PIPE else ""):
            raise CommandError("Parquet is read from and written to files only; use csv or jsonl for -.", returncode=2)
        if source != PIPE and target != PIPE and Path(source).resolve() == Path(target).resolve():
            raise CommandError("--out must be another file than --file.", returncode=2)

    def run(
        self, model: str, version: str, user: str, *, resume: bool, overwrite: bool, concurrency: int,
        patience_seconds: float, quiet: bool,
    ) -> Checkpoint:  # fmt: skip
        """Returns when the result is in its place. Raises CommandError, or SystemExit after Ctrl-C."""
        stop = threading.Event()
        file = PartFile(Path(self.target).absolute(), 0o666) if self.target != PIPE else None
        notes = CheckpointFile(file.part.with_name(file.part.name + ".json")) if file else None
        kept = self._kept(file, notes, resume=resume, overwrite=overwrite)
        with self._opened() as source, _ends_softly(stop), _Shown(quiet) as shown:
            try:
                pinned = pinning.pinned(kept.model_id, "") if kept else pinning.pinned(model, version)
                signature = pinning.signature_of(pinned, user=user)
                plan = Plan(source, self.source_kind, signature, self.options)
                asker = Asker(
                    pinned.model_id,
                    user,
                    timeout_seconds=client.time_limit_seconds(),
                    pace=Pace(self.options.batch_rows),
                    patience_seconds=patience_seconds,
                    stop=stop,
                    on_waiting=shown.waits,
                )
                shown.begin(self.source, plan.reader.size, kept)
                scoring = Scoring(
                    plan,
                    asker,
                    file or Stream(sys.stdout.buffer),
                    self.target_kind,
                    partial(self._save, notes),
                    concurrency,
                    shown.moved,
                )
                done = scoring.run(kept)
            except Stopped:
                raise SystemExit(self._told_to_go_on(shown, notes)) from None
            except MustWait as waiting:
                raise CommandError(f"{waiting} {self._how_to_go_on(notes)}".strip()) from None
            except LoaderdError as error:
                raise CommandError(f"{error.message} {self._how_to_go_on(notes)}".strip()) from error
            except BrokenPipeError:
                _forget_stdout()
                raise SystemExit(1) from None
            except OSError as error:
                told = f"{error.filename or self.target}: {error.strerror or error}."
                raise CommandError(f"{told} {self._how_to_go_on(notes)}".strip()) from error
        if notes is not None:
            notes.remove()
        return done

    def _kept(
        self, file: PartFile | None, notes: CheckpointFile | None, *, resume: bool, overwrite: bool
    ) -> Checkpoint | None:
        """The checkpoint to go on from, None to begin."""
        if file is None or notes is None:
            if resume:
                raise CommandError("--resume needs a file as --out: of a pipe nothing is left.", returncode=2)
            return None
        if resume and self.source == PIPE:
            raise CommandError("--resume needs a file as --file: a pipe cannot be read again.", returncode=2)
        try:
            kept = notes.read()
        except ValueError:
            raise CommandError(f"{notes.path} cannot be read; remove it and begin anew.") from None
        if resume:
            if kept is None:
                if file.path.exists():
                    raise CommandError(f"{file.path} is there and nothing says that it is not whole.")
                return None
            if kept.of != self._identity():
                raise CommandError(
                    f"{self.source}, or how it is to be read, is not what {notes.path} was written for; begin anew "
                    "without --resume."
                )
            return kept
        if kept is not None and not overwrite:
            raise CommandError(
                f"{file.part} is what an earlier run left: --resume goes on with it, --overwrite begins anew."
            )
        if file.path.exists() and not overwrite:
            raise CommandError(f"{file.path} exists; --overwrite replaces it once the new one is whole.")
        notes.remove()
        file.remove()
        return None

    def _identity(self) -> dict[str, Any]:
        """What a part file belongs to: the same bytes, read and written in the same way."""
        found = Path(self.source).stat() if self.source != PIPE else None
        options = self.options.to_json()
        del options["batch_rows"]
        return {
            "size": found and found.st_size,
            "mtime_ns": found and found.st_mtime_ns,
            "formats": [self.source_kind, self.target_kind],
            "options": options,
        }

    def _save(self, notes: CheckpointFile | None, checkpoint: Checkpoint) -> None:
        if notes is not None:
            checkpoint.of.update(checkpoint.of or self._identity())
            notes.save(checkpoint)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        if self.source == PIPE:
            yield sys.stdin.buffer
            return
        try:
            file = Path(self.source).open("rb")  # noqa: SIM115 (closed below)
        except OSError as error:
            raise CommandError(f"{self.source}: {error.strerror}.", returncode=2) from None
        with file:
            yield file

    def _how_to_go_on(self, notes: CheckpointFile | None) -> str:
        if notes is None or not notes.path.exists() or self.source == PIPE:
            return ""
        return f"What is done is kept in {notes.path.name.removesuffix('.json')}; --resume goes on."

    def _told_to_go_on(self, shown: _Shown, notes: CheckpointFile | None) -> int:
        shown.say(f"Stopped. {self._how_to_go_on(notes)}".strip())
        return INTERRUPTED


class _Shown:
    """A progress bar on standard error, where somebody sees it."""

    def __init__(self, quiet: bool) -> None:
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rows]:,} rows, {task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self._first_rows = 0

    def __enter__(self) -> _Shown:
        self._bar.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._bar.stop()

    def begin(self, name: str, size: int | None, kept: Checkpoint | None) -> None:
        self._first_rows = kept.rows if kept else 0
        self._task = self._bar.add_task(name, total=size, rows=self._first_rows, rate="–", note="")
        if kept and kept.offset:
            self._bar.update(self._task, completed=kept.offset)

    def moved(self, checkpoint: Checkpoint) -> None:
        if self._task is None:
            return
        elapsed = self._bar.tasks[0].elapsed
        rate = f"{(checkpoint.rows - self._first_rows) / elapsed:,.0f}/s" if elapsed else "–"
        note = f"{checkpoint.failed:,} with an error" if checkpoint.failed else ""
        self._bar.update(self._task, completed=checkpoint.offset or 0, rows=checkpoint.rows, rate=rate, note=note)

    def waits(self, error: LoaderdError) -> None:
        if self._task is not None:
            self._bar.update(self._task, note=f"waits: {error.message}")

    def say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)


@contextlib.contextmanager
def _ends_softly(stop: threading.Event) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM lets the batch under way end; the second one ends at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _kind_of(path: str, otherwise: str | None, option: str) -> str:
    kind = format_of(path) or otherwise
    if kind is None:
        raise CommandError(
            f"The format of {path} is not told by its name; give {option} csv, jsonl or parquet.", returncode=2
        )
    return kind


def _forget_stdout() -> None:
    """Nobody reads it any more; Python would complain at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
