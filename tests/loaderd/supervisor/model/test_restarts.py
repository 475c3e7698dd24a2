"""How often, and how soon, a model whose process died is started again."""

from __future__ import annotations

from loaderd.supervisor.model.restarts import Restart, Restarts


def test_the_first_restart_is_at_once_and_each_further_pause_is_twice_as_long() -> None:
    restarts = Restarts(first_pause_seconds=0.5, max_pause_seconds=3.0)
    pauses = [restarts.died(1.0, max_attempts=6) for _ in range(7)]
    assert pauses == [*(Restart(n + 1, p) for n, p in enumerate([0.0, 0.5, 1.0, 2.0, 3.0, 3.0])), None]


def test_a_process_that_lived_long_enough_begins_a_new_count() -> None:
    restarts = Restarts(stable_seconds=60.0)
    for _ in range(3):
        assert restarts.died(59.9, max_attempts=3)
    assert restarts.died(60.0, max_attempts=3) == Restart(1, 0.0)


def test_a_load_that_was_asked_for_is_the_first_attempt_and_its_repetition_is_at_once() -> None:
    restarts = Restarts()
    restarts.begin(tried=1)
    assert restarts.died(0.0, max_attempts=3) == Restart(2, 0.0)
    assert restarts.died(0.0, max_attempts=3) == Restart(3, 0.5)
    assert restarts.died(0.0, max_attempts=3) is None
