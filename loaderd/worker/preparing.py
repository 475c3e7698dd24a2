"""What of a request's work needs no model is done on a thread of its own while the model computes: tokenisation."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

import numpy as np

from loaderd.errors import InvalidInput, LoaderdError, Overloaded
from loaderd.frameworks.base import LoadedModel
from loaderd.worker.batching import Arrays, Job, Line, Slice, items_of
from loaderd.worker.call import describe
from loaderd.worker.compute import ComputeThread
from loaderd.worker.failures import FailureLog
from loaderd.worker.faults import is_out_of_memory

PIECE_ITEMS = 64
"""So many items are prepared before what has come meanwhile is looked at."""


class PreparingThread:
    """Prepares the jobs that are submitted and hands them to the compute thread, in the order in which that takes them:
    by rank, a large one piece by piece between the others.

    on_failed: called on this thread with a job that goes no further: its inputs cannot be prepared, and its error is in
    it, or it is abandoned.
    """

    def __init__(
        self, model_id: str, model: LoadedModel, compute: ComputeThread, on_failed: Callable[[Job], object]
    ) -> None:
        self._model_id = model_id
        self._model = model
        self._compute = compute
        self._on_failed = on_failed
        self._arrived: SimpleQueue[list[Job]] = SimpleQueue()
        self._waiting = Line(PIECE_ITEMS)
        self._failures = FailureLog()
        threading.Thread(target=self._run, name="preparing", daemon=True).start()

    def submit(self, jobs: list[Job]) -> None:
        self._arrived.put(jobs)

    def _run(self) -> None:
        while True:
            self._gather()
            began = time.perf_counter()
            pieces = self._waiting.take(began)
            for piece in pieces:
                self._take_on(piece)
            self._waiting.called(items_of(pieces), time.perf_counter() - began)

    def _gather(self) -> None:
        """Takes all that arrived; waits only when there is nothing to do."""
        try:
            while True:
                for job in self._arrived.get(not self._waiting):
                    self._waiting.add(job)
        except Empty:
            return

    def _take_on(self, piece: Slice) -> None:
        """Prepares a piece of a job and passes the job on when it was the last, or there is no use in the others."""
        job = piece.job
        if not job.abandoned:
            began = time.perf_counter()
            try:
                self._prepare(piece)
            except BaseException as error:  # libraries in other languages raise panics, which are no Exceptions
                job.error = self._failure_of(error)
            job.input_seconds += time.perf_counter() - began
        if job.abandoned or job.error is not None:
            if job.remaining_items:
                self._waiting.drop(lambda other: other is job)
            self._on_failed(job)
        elif not job.remaining_items:
            job.taken_items = 0
            self._compute.submit(job)

    def _prepare(self, piece: Slice) -> None:
        job = piece.job
        made = self._model.prepare(piece.inputs())
        if made is None:
            return
        prepared: Arrays = dict(made)
        if piece.items < job.items:
            job.parts.append(prepared)
            if job.remaining_items:
                return
            prepared = {name: np.concatenate([part[name] for part in job.parts]) for name in prepared}
            job.parts = []
        job.inputs = prepared

    def _failure_of(self, error: BaseException) -> LoaderdError:
        if isinstance(error, LoaderdError):
            return error
        if is_out_of_memory(error):
            return Overloaded(
                f"{self._model_id} has no memory left to prepare the request; send fewer items at once, or try again "
                "in a moment.",
                model_id=self._model_id,
            )
        self._failures.note(error)
        return InvalidInput(f"The request cannot be prepared: {describe(error)}.")
