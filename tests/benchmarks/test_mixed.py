from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import mixed
from benchmarks.mixed import Course, Traffic, growth, is_flat, part


def test_memory_that_settles_after_the_start_is_flat_and_memory_that_climbs_is_not() -> None:
    assert is_flat([100, 180, 200, 201, 200, 202, 201, 200, 202, 201, 200, 201])
    assert not is_flat([100 + 5 * number for number in range(24)])


def test_growth_is_the_last_quarter_beside_the_second_one() -> None:
    assert growth([1, 1, 100, 100, 150, 150, 110, 110]) == pytest.approx(0.1)
    assert growth([1, 2, 3]) == 0.0


def test_the_part_tells_errors_failures_and_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixed.plot, "draw", lambda document, name, panels: Path("docs/performance/mixed.svg"))
    course = Course(
        at=[5.0 * n for n in range(8)],
        pss_mb=[100.0] * 8,
        private_mb={"gateway": [50.0] * 8},
        cycle_seconds=[0.2, 0.4],
        switch_seconds=[0.1],
        failures=["activate: 500"],
    )
    text = part(
        Path("docs/performance.md"), 10, {"text": Traffic(1000, 2, 1.5, 9.0, 30.0, [(10.0, 9.0)], ["500 x"])}, course
    )
    assert "| text | 100 | 1,000 | 2 | 1.50 | 9.0 | 30 |" in text
    assert "| gateway | 50 | +0.0% |" in text
    assert "1 of these commands failed." in text
