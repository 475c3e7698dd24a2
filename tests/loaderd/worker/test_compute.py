"""The compute thread outlives whatever is asked of it between two calls."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest

from loaderd.frameworks.base import LoadedModel
from loaderd.generation.contract import Event, Generation
from loaderd.worker.batching import Job
from loaderd.worker.compute import ComputeThread
from tests.deadline import wait_until
from tests.loaderd.worker.framework import Double
from tests.loaderd.worker.process import ANSWER_SECONDS, spec

if TYPE_CHECKING:
    from loaderd.frameworks.base import Batch


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


class Wide(Double):
    """Gives rows as wide as the largest number among the items, as padded tokens are."""

    def __init__(self, gate: threading.Event | None = None) -> None:
        self._gate = gate

    def predict(self, inputs: Batch) -> dict[str, np.ndarray]:
        if self._gate is not None:
            assert self._gate.wait(ANSWER_SECONDS)
        return {"y": inputs["x"][:, :1].repeat(int(inputs["x"].max()), axis=1)}


def rows(*values: float) -> Job:
    return Job({"x": np.array(values, dtype=np.float32).reshape(-1, 1)}, len(values), 0.0, lambda outputs: outputs)


class Running:
    """A compute thread with what it told."""

    def __init__(self, model: LoadedModel, max_batch_size: int = 64) -> None:
        self.done: SimpleQueue[list[Job]] = SimpleQueue()
        self.lost: SimpleQueue[BaseException] = SimpleQueue()
        self.thread = ComputeThread(
            spec(max_batch_size=max_batch_size),
            lambda: model,
            lambda *_: None,
            lambda jobs, batches, seconds, items: self.done.put(jobs),
            self.lost.put,
        )
        self.thread.start()

    def next_done(self, jobs: int) -> list[Job]:
        found: list[Job] = []
        while len(found) < jobs:
            found += self.done.get(timeout=ANSWER_SECONDS)
        return found


def test_a_job_that_shares_a_call_with_one_at_fault_keeps_all_its_rows() -> None:
    running = Running(Wide(), max_batch_size=4)
    sound, at_fault = rows(3, 3, 3, 3, 3, 3), rows(2, 2, 2, 2, 3, 3)
    running.thread.submit([sound, at_fault])
    running.next_done(2)
    assert sound.error is None
    assert sound.outputs is not None
    assert sound.outputs["y"].shape == (6, 3)
    assert at_fault.error is not None
    running.thread.end(lambda: None)


def test_each_job_is_told_of_once_and_abandoned_ones_as_well() -> None:
    gate = threading.Event()
    running = Running(Wide(gate))
    first, left, stays = rows(1), rows(1), rows(1)
    running.thread.submit(first)
    wait_until(lambda: running.thread.in_call == 1, what="the first call")
    running.thread.submit([left, stays])
    left.abandon()
    running.thread.abandoned()
    gate.set()
    told = running.next_done(3)
    assert sorted(map(id, told)) == sorted(map(id, (first, left, stays)))
    assert left.outputs is None
    assert stays.outputs is not None
    running.thread.end(lambda: None)


class Fails:
    """A generator that breaks its promise not to raise."""

    has_work = True

    def step(self) -> list[Event]:
        raise RuntimeError("nobody expected this")


def test_what_nobody_expected_to_fail_is_told_so_that_the_process_ends() -> None:
    model = Double()
    model.generation = cast("Generation", Fails())
    running = Running(model)
    assert str(running.lost.get(timeout=ANSWER_SECONDS)) == "nobody expected this"
