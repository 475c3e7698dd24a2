"""One producer for all viewers: made once however many ask at the same time, never older than promised."""

from __future__ import annotations

import threading

import pytest

from modelhub.console.live import Shared


class Counter:
    """Counts how often it was asked; may be held up, and may fail."""

    def __init__(self) -> None:
        self.made = 0
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.is_made = threading.Event()
        self.error: Exception | None = None

    def __call__(self) -> int:
        self.made += 1
        self.is_made.set()
        assert self.may_go_on.wait(10)
        if self.error is not None:
            raise self.error
        return self.made


def test_all_who_ask_at_the_same_time_get_what_one_of_them_made() -> None:
    make = Counter()
    make.may_go_on.clear()
    shared = Shared(make, max_age_seconds=60.0)
    got: list[int] = []
    askers = [threading.Thread(target=lambda: got.append(shared.get())) for _ in range(20)]
    for asker in askers:
        asker.start()
    assert make.is_made.wait(10)
    make.may_go_on.set()
    for asker in askers:
        asker.join(10)
    assert got == [1] * 20


def test_what_is_too_old_is_made_anew() -> None:
    make = Counter()
    shared = Shared(make, max_age_seconds=0.0)
    assert [shared.get(), shared.get()] == [1, 2]


def test_a_change_can_ask_for_a_fresh_one() -> None:
    shared = Shared(Counter(), max_age_seconds=60.0)
    assert [shared.get(), shared.get()] == [1, 1]
    shared.forget()
    assert shared.get() == 2


def test_a_failure_is_told_and_not_kept() -> None:
    make = Counter()
    make.error = ValueError("no database")
    shared = Shared(make, max_age_seconds=60.0)
    with pytest.raises(ValueError, match="no database"):
        shared.get()
    make.error = None
    assert shared.get() == 2
