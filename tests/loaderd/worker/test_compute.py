"""The compute thread outlives whatever is asked of it between two calls."""

from __future__ import annotations

import threading
from queue import SimpleQueue

import numpy as np
import pytest

from loaderd.worker.batching import Job
from loaderd.worker.compute import ComputeThread
from tests.loaderd.worker.framework import Double
from tests.loaderd.worker.process import ANSWER_SECONDS, spec


@pytest.mark.parametrize("fault", [TypeError("Integer exceeds 64-bit range"), SystemExit(1)], ids=["error", "exit"])
def test_an_ask_that_raises_ends_neither_the_thread_nor_the_jobs(fault: BaseException) -> None:
    loaded, ended = threading.Event(), threading.Event()
    done: SimpleQueue[list[Job]] = SimpleQueue()
    lost: list[BaseException] = []
    compute = ComputeThread(
        spec(), Double, lambda *_: loaded.set(), lambda jobs, batches, seconds, items: done.put(jobs), lost.append
    )
    compute.start()
    assert loaded.wait(ANSWER_SECONDS)

    def ask() -> None:
        raise fault

    compute.ask(ask)
    model = Double()
    compute.submit(Job({name: np.asarray(array) for name, array in model.sample_input().items()}, 1, 0.0, lambda o: o))
    (job,) = done.get(timeout=ANSWER_SECONDS)
    assert job.error is None
    assert compute.busy_seconds == 0.0
    compute.end(ended.set)
    assert ended.wait(ANSWER_SECONDS)
    assert lost == []
