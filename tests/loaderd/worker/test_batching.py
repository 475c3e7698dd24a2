"""What goes into the next call, decided without a thread or a clock."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loaderd.worker.batching import (
    BULK_CALL_SECONDS,
    BULK_PATIENCE_SECONDS,
    RETURN_GAP_SECONDS,
    RETURN_GAP_SHARE,
    RETURN_LEAST_SECONDS,
    RETURN_MOST_SECONDS,
    RETURN_SHARE,
    Job,
    Line,
    Rank,
    Return,
    Slice,
    choose,
    handed_out,
    items_of,
    joined,
)


def job(items: int, width: int = 1, first: int = 0) -> Job:
    rows = np.arange(first, first + items).repeat(width).reshape(items, width)
    return Job({"x": rows}, items, 0.0, lambda outputs: outputs)


def test_everything_that_waits_goes_into_one_call() -> None:
    jobs = [job(1), job(2), job(3)]
    waiting = deque(jobs)
    chosen = choose(waiting, 64)
    assert [part.job for part in chosen] == jobs
    assert not waiting
    assert joined(chosen)["x"].shape == (6, 1)


def test_a_call_holds_no_more_than_its_limit_and_smaller_jobs_fill_the_rest() -> None:
    jobs = [job(3), job(3), job(1)]
    waiting = deque(jobs)
    assert [part.job for part in choose(waiting, 4)] == [jobs[0], jobs[2]]
    assert list(waiting) == [jobs[1]]


def test_jobs_of_another_shape_wait_for_the_next_call_in_their_order() -> None:
    jobs = [job(1, width=1), job(1, width=2), job(1, width=1), job(1, width=2)]
    waiting = deque(jobs)
    assert [part.job for part in choose(waiting, 64)] == [jobs[0], jobs[2]]
    assert [part.job for part in choose(waiting, 64)] == [jobs[1], jobs[3]]


def test_a_job_larger_than_a_call_lets_the_others_pass_between_its_parts() -> None:
    large, small = job(10), job(1)
    waiting = deque([large, small])
    assert choose(waiting, 4) == [Slice(large, 0, 4)]
    assert choose(waiting, 4) == [Slice(small, 0, 1)]
    assert choose(waiting, 4) == [Slice(large, 4, 8)]
    assert choose(waiting, 4) == [Slice(large, 8, 10)]
    assert not waiting


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 2)), min_size=1, max_size=12), st.integers(1, 8))
def test_every_job_gets_its_own_rows_back_whatever_was_joined(sizes: list[tuple[int, int]], limit: int) -> None:
    jobs = [job(items, width, first=1000 * index) for index, (items, width) in enumerate(sizes)]
    waiting = deque(jobs)
    while waiting:
        chosen = choose(waiting, limit)
        batch = joined(chosen)["x"]
        assert 1 <= len(batch) <= limit
        handed_out(chosen, {"y": batch + 0.5})
    for done in jobs:
        assert done.outputs is not None
        np.testing.assert_array_equal(done.outputs["y"], done.inputs["x"] + 0.5)


def test_nobody_gets_rows_when_the_parts_of_one_do_not_go_together() -> None:
    large, small = job(3), job(1)
    handed_out(choose(deque([large]), 2), {"y": np.zeros((2, 4))})
    large.taken_items = 3
    with pytest.raises(ValueError, match="dimension"):
        handed_out([Slice(small, 0, 1), Slice(large, 2, 3)], {"y": np.zeros((2, 5))})
    assert small.outputs is None
    assert large.outputs is None
    assert [len(part["y"]) for part in large.parts] == [2]


@pytest.mark.parametrize(
    "array",
    [
        np.ones((3, 1000), dtype=np.float32),
        np.array(["x" * 10_000, "y", "z"], dtype=object),
        np.array([b"x" * 10_000, b"y", b"z"], dtype=object),
        np.empty((3, 0)),
    ],
    ids=["numbers", "texts", "bytes", "empty"],
)
def test_an_abandoned_job_takes_no_memory_and_can_still_go_into_a_call(array: np.ndarray) -> None:
    left = Job({"x": array}, 3, 0.0, lambda outputs: outputs)
    stays = Job({"x": array}, 3, 0.0, lambda outputs: outputs)
    left.abandon()
    hollow = left.inputs["x"]
    assert (hollow.shape, hollow.dtype) == (array.shape, array.dtype)
    if array.size:
        assert hollow.strides == (0,) * array.ndim
        assert len(str(hollow.flat[0])) < 10
    assert left.fits_with(stays)
    np.testing.assert_array_equal(joined([Slice(left, 0, 3), Slice(stays, 0, 3)])["x"][3:], array)


# Whose turn it is


def ranked(items: int, rank: Rank, arrived_at: float = 0.0) -> Job:
    made = job(items)
    made.rank, made.arrived_at = rank, arrived_at
    return made


def test_ranks_take_turns_from_the_most_urgent_on_and_do_not_mix() -> None:
    line = Line(64)
    jobs = [ranked(1, rank) for rank in (Rank.BULK, Rank.INTERACTIVE, Rank.URGENT, Rank.INTERACTIVE)]
    for each in jobs:
        line.add(each)
    taken = [[part.job for part in line.take(0.1)] for _ in range(4)]
    assert taken == [[jobs[2]], [jobs[1], jobs[3]], [jobs[0]], []]


def test_bulk_work_takes_only_what_its_time_allows() -> None:
    line = Line(64)
    line.called(10, 10 * BULK_CALL_SECONDS / 4)  # a quarter of the time for each item
    line.add(ranked(100, Rank.BULK))
    assert items_of(line.take(0.0)) == 4
    line.add(ranked(30, Rank.INTERACTIVE))
    assert items_of(line.take(0.0)) == 30, "it binds nobody else"


def test_bulk_work_gets_at_least_one_item_and_never_more_than_a_call() -> None:
    for seconds, expected in ((1e9, 1), (1e-9, 8)):
        line = Line(8)
        line.called(1, seconds)
        line.add(ranked(100, Rank.BULK))
        assert items_of(line.take(0.0)) == expected


def test_bulk_work_is_not_starved() -> None:
    line = Line(8)
    waiting = ranked(1, Rank.BULK)
    line.add(waiting)
    seen = []
    for step in range(20):
        line.add(ranked(8, Rank.INTERACTIVE))
        seen.append([part.job.rank for part in line.take(step * BULK_PATIENCE_SECONDS / 10)])
    assert [Rank.BULK] in seen
    assert seen.index([Rank.BULK]) == 10


def test_what_is_over_is_dropped_and_the_rest_keeps_its_order() -> None:
    line = Line(64)
    jobs = [ranked(1, rank) for rank in (Rank.INTERACTIVE, Rank.BULK, Rank.INTERACTIVE, Rank.INTERACTIVE)]
    for each in jobs:
        line.add(each)
    jobs[1].abandoned = jobs[2].abandoned = True
    assert set(map(id, line.drop(lambda each: each.abandoned))) == {id(jobs[1]), id(jobs[2])}
    assert [part.job for part in line.take(0.0)] == [jobs[0], jobs[3]]
    assert not line


def bulk_calls(items: int, fixed_seconds: float, item_seconds: float, before: int = 1) -> list[int]:
    """The sizes of the calls that bulk work of so many items is done in, after a call of `before` items."""
    line = Line(64)
    line.called(before, fixed_seconds + before * item_seconds)
    line.add(ranked(items, Rank.BULK))
    sizes = []
    while line:
        sizes.append(items_of(line.take(0.0)))
        line.called(sizes[-1], fixed_seconds + sizes[-1] * item_seconds)
    return sizes


@pytest.mark.parametrize("fixed_seconds", [0.008, 0.012, 0.018, 0.03, 0.2])
def test_where_the_call_costs_most_bulk_work_gets_full_calls(fixed_seconds: float) -> None:
    sizes = bulk_calls(1000, fixed_seconds, 0.0001)
    assert len(sizes) <= 1000 / 64 + 8
    assert sizes[-2] == 64


@pytest.mark.parametrize("before", [1, 10, 64])
def test_where_the_items_cost_most_an_interactive_request_waits_no_longer_for_bulk_work(before: int) -> None:
    sizes = bulk_calls(1000, 0.0005, BULK_CALL_SECONDS / 4, before)
    within = [size for size in sizes if size <= 4]
    assert max(sizes) <= 8
    assert len(within) >= 0.9 * len(sizes)


def test_bulk_work_finds_back_from_calls_that_were_slow_by_chance() -> None:
    line = Line(64)
    for size in (1, 2, 1, 2):
        line.called(size, size * 10.0)
    line.add(ranked(3000, Rank.BULK))
    sizes = []
    while line:
        sizes.append(items_of(line.take(0.0)))
        line.called(sizes[-1], 0.012 + sizes[-1] * 0.0001)
    assert sizes[-2] == 64


def answered(*jobs: Job) -> list[Slice]:
    """Whole, in one call."""
    for each in jobs:
        each.taken_items, each.outputs = each.items, {}
    return [Slice(each, 0, each.items) for each in jobs]


def after(requests: int, waiting_items: int, seconds: float = 0.2, max_items: int = 32) -> Return:
    """After a call of so many requests of one item, while which so many others came; it ended at 10.0."""
    back = Return(max_items)
    back.answered(answered(*(job(1) for _ in range(requests))), seconds, now=10.0)
    if back.is_expected:
        back.begins(waiting_items)
    return back


def test_the_next_call_waits_for_those_that_the_last_one_answered_until_they_are_there() -> None:
    back = after(requests=16, waiting_items=0)
    assert back.is_expected
    for waiting in range(1, 16):
        assert 0.0 < back.worth_waiting(waiting, 10.001) < 0.2 * RETURN_SHARE
    assert back.worth_waiting(16, 10.001) == 0.0


def test_those_that_came_meanwhile_are_computed_with_them() -> None:
    back = after(requests=4, waiting_items=4)
    assert back.worth_waiting(7, 10.0) > 0.0
    assert back.worth_waiting(8, 10.0) == 0.0


def test_until_the_first_is_back_the_whole_share_is_waited_and_then_from_one_to_the_next() -> None:
    back = after(requests=15, waiting_items=1)
    assert back.worth_waiting(1, 10.0) == pytest.approx(0.2 * RETURN_SHARE)
    assert back.worth_waiting(2, 10.0) == pytest.approx(0.2 * RETURN_GAP_SHARE)


def test_nothing_waits_longer_than_a_small_share_of_the_last_call() -> None:
    back = after(requests=16, waiting_items=0)
    assert back.worth_waiting(15, 10.0 + 0.2 * RETURN_SHARE - 0.0001) == pytest.approx(0.0001)
    assert back.worth_waiting(15, 10.0 + 0.2 * RETURN_SHARE) == 0.0
    assert back.worth_waiting(0, 10.0) == 0.0, "nobody is there to wait: the thread waits for the first as ever"


def test_a_lone_client_never_waits() -> None:
    assert not after(requests=1, waiting_items=0).is_expected
    assert after(requests=1, waiting_items=1).worth_waiting(1, 10.0) >= RETURN_GAP_SECONDS[0]


def test_a_full_call_waits_for_nobody() -> None:
    assert after(requests=32, waiting_items=32).worth_waiting(32, 10.0) == 0.0


def test_short_calls_and_parts_of_large_requests_wait_for_nobody() -> None:
    assert not after(requests=16, waiting_items=16, seconds=0.9 * RETURN_LEAST_SECONDS / RETURN_SHARE).is_expected
    part = job(100)
    back = Return(32)
    back.answered([Slice(part, 0, 32)], 0.2, now=10.0)
    assert not back.is_expected


def test_after_a_long_call_nobody_waits_long() -> None:
    back = after(requests=2, waiting_items=0, seconds=10.0)
    assert back.worth_waiting(1, 10.0) == RETURN_GAP_SECONDS[1]
    assert back.worth_waiting(1, 10.0 + RETURN_MOST_SECONDS) == 0.0


def test_only_those_are_expected_that_would_be_computed_with_the_others() -> None:
    left = job(1)
    left.abandon()
    for gone in (
        answered(ranked(1, Rank.URGENT), ranked(1, Rank.URGENT)),
        answered(ranked(8, Rank.BULK)),
        answered(left),
    ):
        back = Return(32)
        back.answered(gone, 0.2, now=10.0)
        assert not back.is_expected


def test_what_was_expected_of_one_call_is_forgotten_with_the_next() -> None:
    back = after(requests=16, waiting_items=0)
    back.answered(answered(job(1)), 0.2, now=20.0)
    assert back.worth_waiting(1, 20.0) == 0.0, "nobody has looked who came meanwhile"


def test_only_interactive_requests_wait_for_others() -> None:
    line = Line(64)
    line.add(ranked(3, Rank.INTERACTIVE))
    line.add(ranked(2, Rank.INTERACTIVE))
    assert line.interactive_items == 5
    line.add(ranked(1, Rank.URGENT))
    assert line.interactive_items == 0
    items_of(line.take(0.0))
    assert line.interactive_items == 5
    line.add(ranked(100, Rank.BULK))
    assert line.interactive_items == 0
