"""What is prepared before the model's turn, in which order, and what becomes of what cannot be."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest

from loaderd.errors import InvalidInput, LoaderdError, Overloaded
from loaderd.worker.batching import Job, Rank
from loaderd.worker.compute import ComputeThread
from loaderd.worker.preparing import PIECE_ITEMS, PreparingThread
from tests.loaderd.worker.framework import Prepared
from tests.loaderd.worker.process import ANSWER_SECONDS

if TYPE_CHECKING:
    from loaderd.frameworks.base import Batch


class Panic(BaseException):
    """As libraries in Rust raise it."""


FAULTS = {"panic": Panic("unwrap on a None"), "memory": MemoryError(), "refuse": InvalidInput("no"), "odd": KeyError(1)}


class Words(Prepared):
    """Counts words; a text may name a fault, and `gate` waits."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.calls: list[int] = []

    def prepare(self, inputs: Batch) -> Batch:
        texts = list(inputs["text"])
        self.calls.append(len(texts))
        if "gate" in texts:
            self.entered.set()
            assert self.gate.wait(ANSWER_SECONDS)
        for text in texts:
            if text in FAULTS:
                raise FAULTS[text]
        if texts[0] == "pairs":
            return cast("Batch", [("ready", 1, 2)])
        return {"words": np.array([len(text.split()) for text in texts])}


class Ready:
    """Stands where the compute thread does, and keeps what it gets."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[Job] = SimpleQueue()

    def submit(self, job: Job) -> None:
        self.jobs.put(job)


class Preparing:
    def __init__(self) -> None:
        self.model, self.ready, self.failed = Words(), Ready(), SimpleQueue[Job]()
        self.thread = PreparingThread("m", self.model, cast("ComputeThread", self.ready), self.failed.put)

    def next_ready(self) -> Job:
        return self.ready.jobs.get(timeout=ANSWER_SECONDS)

    def next_failed(self) -> Job:
        return self.failed.get(timeout=ANSWER_SECONDS)


def job(*texts: str, rank: Rank = Rank.INTERACTIVE) -> Job:
    return Job({"text": np.array(texts, dtype=object)}, len(texts), 0.0, lambda outputs: outputs, rank=rank)


@pytest.fixture
def preparing() -> Preparing:
    return Preparing()


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("panic", InvalidInput, "Panic: unwrap on a None"),
        ("pairs", InvalidInput, "ValueError"),
        ("odd", InvalidInput, "KeyError: 1"),
        ("refuse", InvalidInput, "no"),
        ("memory", Overloaded, "no memory left"),
    ],
)
def test_what_cannot_be_prepared_is_told_and_the_next_one_is_prepared(
    preparing: Preparing, text: str, kind: type[LoaderdError], says: str
) -> None:
    bad, good = job(text), job("two words")
    preparing.thread.submit([bad, good])
    assert preparing.next_failed() is bad
    assert type(bad.error) is kind
    assert says in bad.error.message
    assert preparing.next_ready() is good
    np.testing.assert_array_equal(good.inputs["words"], [2])


def test_a_large_job_is_prepared_in_pieces_and_comes_out_whole(preparing: Preparing) -> None:
    items = 3 * PIECE_ITEMS + 5
    large = job(*(" ".join(["word"] * (1 + index % 7)) for index in range(items)))
    preparing.thread.submit([large])
    assert preparing.next_ready() is large
    np.testing.assert_array_equal(large.inputs["words"], 1 + np.arange(items) % 7)
    assert (large.remaining_items, large.parts, large.outputs) == (items, [], None)
    assert preparing.model.calls == [PIECE_ITEMS] * 3 + [5]


def test_the_more_urgent_passes_what_is_left_of_bulk_work(preparing: Preparing) -> None:
    bulk = job("gate", *["word"] * 4 * PIECE_ITEMS, rank=Rank.BULK)
    bulk.arrived_at = float("inf")  # so that it has no patience to lose
    plain, urgent = job("plain"), job("urgent", rank=Rank.URGENT)
    preparing.thread.submit([bulk])
    assert preparing.model.entered.wait(ANSWER_SECONDS)
    preparing.thread.submit([plain])
    preparing.thread.submit([urgent])
    preparing.model.gate.set()
    assert [preparing.next_ready() for _ in range(3)] == [urgent, plain, bulk]


def test_one_that_is_abandoned_meanwhile_goes_no_further(preparing: Preparing) -> None:
    begun, waits, stays = job("gate"), job("waits"), job("stays")
    preparing.thread.submit([begun])
    assert preparing.model.entered.wait(ANSWER_SECONDS)
    preparing.thread.submit([waits, stays])
    begun.abandon()
    waits.abandon()
    preparing.model.gate.set()
    assert [preparing.next_failed(), preparing.next_failed()] == [begun, waits]
    assert preparing.next_ready() is stays
    assert preparing.model.calls == [1, 1]


def test_a_piece_at_fault_ends_the_whole_job(preparing: Preparing) -> None:
    bad, good = job(*["word"] * PIECE_ITEMS, "odd", *["word"] * PIECE_ITEMS), job("good")
    preparing.thread.submit([bad])
    assert preparing.next_failed() is bad
    preparing.thread.submit([good])
    assert preparing.next_ready() is good
    assert preparing.failed.empty()
    assert preparing.model.calls == [PIECE_ITEMS, PIECE_ITEMS, 1]
