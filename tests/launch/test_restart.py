"""When a part that died starts again."""

from __future__ import annotations

from modelhub.launch.restart import FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS, STABLE_SECONDS, delay_after_death


def test_the_first_death_is_answered_soon() -> None:
    assert delay_after_death(0.1, None) == FIRST_DELAY_SECONDS


def test_quick_deaths_wait_longer_and_longer_up_to_a_bound() -> None:
    delay: float | None = None
    seen = []
    for _ in range(10):
        delay = delay_after_death(0.1, delay)
        seen.append(delay)
    assert seen[:4] == [0.5, 1.0, 2.0, 4.0]
    assert seen[-1] == LONGEST_DELAY_SECONDS


def test_a_stable_life_forgives_what_was_before() -> None:
    assert delay_after_death(STABLE_SECONDS, LONGEST_DELAY_SECONDS) == FIRST_DELAY_SECONDS
