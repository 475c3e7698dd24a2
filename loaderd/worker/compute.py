"""The one thread that uses the model: it loads it, warms it up, predicts, and unloads it.

One thread, because the libraries keep state per thread (torch's grad mode and thread count, TensorFlow's
contexts), and because a model need not be safe for two.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue

import numpy as np

from loaderd.errors import LoaderdError, PredictionFailed
from loaderd.frameworks.base import LoadedModel
from loaderd.oip import datatypes
from loaderd.worker.batching import Arrays, Job, Slice, choose, handed_out, joined
from loaderd.worker.failures import FailureLog

log = logging.getLogger(__name__)


def describe(error: BaseException) -> str:
    """The exception's class and its text, shortened."""
    text = str(error)
    return f"{type(error).__name__}: {text[:1000]}" if text else type(error).__name__


class ComputeThread:
    """Runs `load()` once, then the jobs that are submitted until `end()`.

    on_loaded(model, None) or on_loaded(None, error) and on_done(jobs, batches, compute_seconds) are called on
    this thread; the caller hands them over to its own.
    """

    def __init__(
        self,
        model_id: str,
        max_batch_items: int,
        load: Callable[[], LoadedModel],
        on_loaded: Callable[[LoadedModel | None, BaseException | None], None],
        on_done: Callable[[list[Job], int, float], None],
    ) -> None:
        self._model_id = model_id
        self._max_batch_items = max(1, max_batch_items)
        self._load = load
        self._on_loaded = on_loaded
        self._on_done = on_done
        self._arrived: SimpleQueue[Job | None] = SimpleQueue()  # None: the end
        self._waiting: deque[Job] = deque()
        self._batches = 0
        self._failures = FailureLog()
        self._on_ended: Callable[[], object] | None = None
        self._thread = threading.Thread(target=self._run, name="compute", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, job: Job) -> None:
        self._arrived.put(job)

    def end(self, on_ended: Callable[[], object]) -> None:
        """Has the model unloaded, once all jobs are answered or abandoned; on_ended is called on this thread."""
        self._on_ended = on_ended
        self._arrived.put(None)

    @property
    def queued(self) -> int:
        """Jobs that wait for a call; a snapshot."""
        return self._arrived.qsize() + len(self._waiting)

    def _run(self) -> None:
        try:
            model = self._load()
        except BaseException as error:  # SystemExit of a careless library as well: a load ends in one message
            self._on_loaded(None, error)
            return
        self._on_loaded(model, None)
        while self._gather():
            if any(job.abandoned for job in self._waiting):
                self._waiting = deque(job for job in self._waiting if not job.abandoned)
            if self._waiting:
                self._compute(model, choose(self._waiting, self._max_batch_items))
        self._unload(model)

    def _gather(self) -> bool:
        """Takes all that arrived; waits only when there is nothing to do. False at the end."""
        try:
            while True:
                job = self._arrived.get(block=not self._waiting)
                if job is None:
                    return False
                self._waiting.append(job)
        except Empty:
            return True

    def _unload(self, model: LoadedModel) -> None:
        try:
            model.unload()
        except BaseException:
            log.exception("%s could not give back what it holds", self._model_id)
        if self._on_ended is not None:
            self._on_ended()

    def _compute(self, model: LoadedModel, slices: list[Slice]) -> None:
        started_at = time.perf_counter()
        self._batches = 0
        try:
            handed_out(slices, self._predict(model, slices))
        except BaseException as error:
            if len(slices) == 1:
                self._fail(slices[0].job, error)
            else:
                self._compute_alone(model, slices)
        finished = [part.job for part in slices if part.job.outputs is not None or part.job.error is not None]
        self._on_done(finished, self._batches, time.perf_counter() - started_at)

    def _compute_alone(self, model: LoadedModel, slices: list[Slice]) -> None:
        """Predicts each slice by itself, so that only the one at fault fails."""
        for part in slices:
            try:
                handed_out([part], self._predict(model, [part]))
            except BaseException as error:
                self._fail(part.job, error)

    def _predict(self, model: LoadedModel, slices: list[Slice]) -> Arrays:
        self._batches += 1
        outputs = model.predict(joined(slices))
        return self._checked(model, outputs, sum(part.items for part in slices))

    def _checked(self, model: LoadedModel, outputs: Mapping[str, np.ndarray], items: int) -> Arrays:
        """The outputs that the signature promises, in its datatypes; raises PredictionFailed when one is amiss."""
        checked = {}
        for spec in model.signature.outputs:
            if spec.name not in outputs:
                raise PredictionFailed(f'{self._model_id} gave no output "{spec.name}", which its signature promises.')
            array = datatypes.as_datatype(outputs[spec.name], spec.datatype)
            if len(array) != items:
                raise PredictionFailed(
                    f'{self._model_id} gave {len(array)} rows of "{spec.name}" for {items} items; '
                    "its framework must answer each item with one row."
                )
            checked[spec.name] = array
        return checked

    def _fail(self, job: Job, error: BaseException) -> None:
        if job.remaining_items:
            self._waiting.remove(job)
        if isinstance(error, LoaderdError):
            job.error = error
            return
        self._failures.note(error)
        job.error = PredictionFailed(
            f"{self._model_id} failed to predict: {describe(error)} (the model's log has the traceback).",
            model_id=self._model_id,
        )
