"""The compute thread outlives whatever is asked of it between two calls."""

from __future__ import annotations

import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest

from loaderd.errors import LoaderdError
from loaderd.frameworks.base import LoadedModel
from loaderd.generation.contract import Event, Generation
from loaderd.worker import batching
from loaderd.worker.batching import Job, Rank
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


class Short(Wide):
    """May be called on any thread, and keeps on which it was."""

    any_thread = True

    def __init__(self, gate: threading.Event | None = None) -> None:
        super().__init__(gate)
        self.called_on: list[str] = []
        self.fault: BaseException | None = None

    def predict(self, inputs: Batch) -> dict[str, np.ndarray]:
        self.called_on.append(threading.current_thread().name)
        if self.fault is not None:
            raise self.fault
        return super().predict(inputs)


class TestHere:
    """A short call is made on the thread that asks for it, if the model's own has nothing to do."""

    def known(self, model: LoadedModel) -> Running:
        """A thread that has computed before, so that it knows what a call takes, and waits for more."""
        running = Running(model, max_batch_size=4)
        self.finished: list[Job] = []
        first = rows(1)
        assert not running.thread.compute_here([first], self.keep), "nobody knows how long a call takes"
        running.thread.submit(first)
        running.next_done(1)
        wait_until(lambda: running.thread.is_parked, what="it waits for more")
        return running

    def keep(self, jobs: list[Job], calls: int, seconds: float, items: int) -> None:
        assert (calls, items) == (1, sum(job.items for job in jobs))
        assert seconds > 0
        self.finished += jobs

    def test_it_is_over_on_return(self) -> None:
        model = Short()
        running = self.known(model)
        jobs = [rows(2, 3), rows(3), rows(3, 3)]  # more than one call takes
        assert running.thread.compute_here(jobs, self.keep)
        assert model.called_on[1:] == ["MainThread", "MainThread"]
        assert list(map(id, self.finished)) == list(map(id, jobs))
        assert all(job.outputs is not None and len(job.outputs["y"]) == job.items for job in jobs)
        assert running.thread.busy_seconds == 0.0
        running.thread.end(lambda: None)

    def test_its_failure_is_the_jobs(self) -> None:
        model = Short()
        running = self.known(model)
        model.fault = ValueError("a hole in row 3")
        job = rows(1)
        assert running.thread.compute_here([job], self.keep)
        assert isinstance(job.error, LoaderdError)
        assert "a hole in row 3" in job.error.message
        model.fault = None
        assert running.thread.compute_here([other := rows(1)], self.keep)
        assert other.outputs is not None
        running.thread.end(lambda: None)

    def test_a_lost_device_ends_the_process(self) -> None:
        model = Short()
        running = self.known(model)
        model.fault = RuntimeError("CUDA error: an illegal memory access was encountered")
        assert running.thread.compute_here([rows(1)], self.keep)
        assert "illegal memory access" in str(running.lost.get(timeout=ANSWER_SECONDS))

    def test_not_beside_the_models_own_thread(self) -> None:
        gate = threading.Event()
        gate.set()
        model = Short(gate)
        running = self.known(model)
        gate.clear()
        running.thread.submit(rows(1))
        assert not running.thread.compute_here([rows(1)], self.keep)
        gate.set()
        running.next_done(1)
        gate.clear()
        running.thread.ask(lambda: None if gate.wait(ANSWER_SECONDS) else AssertionError())
        assert not running.thread.compute_here([rows(1)], self.keep), "the canary uses the model"
        gate.set()
        wait_until(lambda: running.thread.is_parked, what="it waits for more")
        assert running.thread.compute_here([rows(1)], self.keep)
        running.thread.end(lambda: None)
        assert not running.thread.compute_here([rows(1)], self.keep)

    def test_neither_what_is_long_nor_bulk_nor_what_has_a_deadline(self) -> None:
        running = self.known(Short())
        assert not running.thread.compute_here([rows(*[1.0] * 100_000)], self.keep)
        bulk, late = rows(1), rows(1)
        bulk.rank, late.deadline = Rank.BULK, 0.0
        assert not running.thread.compute_here([bulk], self.keep)
        assert not running.thread.compute_here([late], self.keep)
        running.thread.end(lambda: None)

    def test_not_of_a_model_that_knows_one_thread_only(self) -> None:
        running = self.known(Wide())
        assert not running.thread.compute_here([rows(1)], self.keep)
        running.thread.end(lambda: None)


class Slow(Double):
    """Tells of each call's items as it begins, and computes for a while."""

    def __init__(self, seconds: float) -> None:
        self.calls: SimpleQueue[int] = SimpleQueue()
        self._seconds = seconds

    def predict(self, inputs: Batch) -> dict[str, np.ndarray]:
        self.calls.put(len(inputs["x"]))
        threading.Event().wait(self._seconds)
        return {"y": inputs["x"]}


def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine: it is about who comes, not about when."""
    monkeypatch.setattr(batching, "RETURN_SHARE", 1e6)
    monkeypatch.setattr(batching, "RETURN_MOST_SECONDS", 2 * ANSWER_SECONDS)
    monkeypatch.setattr(batching, "RETURN_GAP_SECONDS", (2 * ANSWER_SECONDS, 2 * ANSWER_SECONDS))


def test_clients_that_ask_again_at_once_are_computed_together_again(monkeypatch: pytest.MonkeyPatch) -> None:
    patient(monkeypatch)
    model = Slow(0.1)
    running = Running(model)
    running.thread.submit([rows(1), rows(1), rows(1), rows(1)])
    assert model.calls.get(timeout=ANSWER_SECONDS) == 4
    for _ in range(3):
        running.next_done(4)
        for _ in range(4):  # one by one, as they are read from sockets
            running.thread.submit(rows(1))
        assert model.calls.get(timeout=ANSWER_SECONDS) == 4
    running.next_done(4)
    running.thread.end(lambda: None)


def test_what_is_asked_between_two_calls_does_not_wait_for_requests_that_may_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patient(monkeypatch)
    model = Slow(0.01)
    running, asked = Running(model), threading.Event()
    running.thread.submit([rows(1), rows(1)])
    running.next_done(2)
    assert model.calls.get(timeout=ANSWER_SECONDS) == 2
    running.thread.submit(rows(1))  # the other one does not come
    running.thread.ask(asked.set)
    assert asked.wait(ANSWER_SECONDS)
    assert model.calls.get(timeout=ANSWER_SECONDS) == 1
    running.thread.end(lambda: None)


def test_a_request_with_a_deadline_is_not_held_up_by_requests_that_may_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patient(monkeypatch)
    model = Slow(0.01)
    running = Running(model)
    running.thread.submit([rows(1), rows(1)])
    running.next_done(2)
    assert model.calls.get(timeout=ANSWER_SECONDS) == 2
    hasty = rows(1)
    hasty.deadline = time.perf_counter() + 2 * ANSWER_SECONDS
    running.thread.submit(hasty)
    assert model.calls.get(timeout=ANSWER_SECONDS) == 1
    running.thread.end(lambda: None)


class Writes:
    """A generator that has work once it is told to, and then takes steps without an end."""

    def __init__(self) -> None:
        self.has_work = False
        self.stepped = threading.Event()

    def step(self) -> list[Event]:
        self.stepped.set()
        self.has_work = False
        return []


def test_a_text_is_begun_without_waiting_for_requests_that_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    patient(monkeypatch)
    model, writes = Slow(0.01), Writes()
    model.generation = cast("Generation", writes)
    running = Running(model)
    running.thread.submit([rows(1), rows(1)])
    running.next_done(2)
    running.thread.submit(rows(1))
    writes.has_work = True
    running.thread.wake()
    assert writes.stepped.wait(ANSWER_SECONDS)
    running.next_done(1)
    running.thread.end(lambda: None)
