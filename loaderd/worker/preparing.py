"""What of a request's work needs no model is done on a thread of its own while the model computes: tokenisation."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from loaderd.errors import InvalidInput, LoaderdError
from loaderd.frameworks.base import LoadedModel
from loaderd.worker.batching import Job
from loaderd.worker.call import describe
from loaderd.worker.compute import ComputeThread


class PreparingThread:
    """Prepares the jobs that are submitted, in their order, and hands them to the compute thread.

    on_failed: called on this thread with a job whose inputs cannot be prepared, and its error in it.
    """

    def __init__(self, model: LoadedModel, compute: ComputeThread, on_failed: Callable[[Job], object]) -> None:
        self._model = model
        self._compute = compute
        self._on_failed = on_failed
        self._arrived: SimpleQueue[list[Job]] = SimpleQueue()
        threading.Thread(target=self._run, name="preparing", daemon=True).start()

    def submit(self, jobs: list[Job]) -> None:
        self._arrived.put(jobs)

    def _run(self) -> None:
        while True:
            for job in self._arrived.get():
                if job.abandoned:
                    continue
                if self._prepare(job):
                    self._compute.submit(job)
                else:
                    self._on_failed(job)

    def _prepare(self, job: Job) -> bool:
        began = time.perf_counter()
        try:
            prepared = self._model.prepare(job.inputs)
        except LoaderdError as error:
            job.error = error
        except Exception as error:
            job.error = InvalidInput(f"The request cannot be prepared: {describe(error)}.")
        else:
            if prepared is not None:
                job.inputs = dict(prepared)
        job.input_seconds += time.perf_counter() - began
        return job.error is None
