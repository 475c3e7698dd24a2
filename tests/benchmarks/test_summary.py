from __future__ import annotations

import pytest

from benchmarks.summary import compared, figures
from benchmarks.targets import verdicts
from tests.benchmarks.rows import row, run


def test_a_figure_is_the_median_of_the_undisturbed_runs() -> None:
    rows = [row("fastapi", run(rate), number=n) for n, rate in enumerate((900, 1000, 1300))]
    rows.append(row("fastapi", run(100, foreign=0.4), number=4))
    (figure,) = figures(rows)
    assert figure.requests_per_second == 1000
    assert figure.spread == pytest.approx(0.4)
    assert (figure.runs, figure.disturbed, figure.is_disturbed) == (3, 1, False)


def test_where_all_runs_were_disturbed_the_least_disturbed_one_stands_and_is_marked() -> None:
    (figure,) = figures([row("fastapi", run(500, foreign=0.3)), row("fastapi", run(700, foreign=0.1))])
    assert (figure.requests_per_second, figure.runs, figure.is_disturbed) == (700, 1, True)


def test_errors_count_from_disturbed_runs_too() -> None:
    (figure,) = figures([row("fastapi", run(500, foreign=0.3, errors=2)), row("fastapi", run(700, errors=1))])
    assert figure.errors == 3


def test_what_failed_is_no_figure() -> None:
    assert figures([row("torchserve", None, failed="no Java")]) == []


def test_ratios_are_formed_within_a_round_so_that_a_slow_hour_hits_both() -> None:
    rows = [
        row("modelhub", run(2000, p99=3.0), number=1),
        row("fastapi", run(1000, p99=5.0), number=1),
        row("triton-batch", run(800, p99=4.0), number=1),
        row("modelhub", run(1000, p99=3.0), number=2),
        row("fastapi", run(400, p99=5.0), number=2),
        row("triton-batch", run(300, p99=4.0), number=2),
    ]
    (comparison,) = compared(rows)
    assert comparison.peer == "fastapi"
    assert (comparison.ratio, comparison.lowest, comparison.highest) == (2.25, 2.0, 2.5)
    assert (comparison.p99_ms, comparison.peer_p99_ms) == (3.0, 4.0)
    assert comparison.rounds == 2


def test_the_empty_answer_is_no_competitor() -> None:
    rows = [row("modelhub", run(2000)), row("fastapi", run(1000)), row("null", run(40_000))]
    (comparison,) = compared(rows)
    assert (comparison.peer, comparison.ratio) == ("fastapi", 2.0)


def test_a_round_that_only_one_side_finished_is_not_compared() -> None:
    assert compared([row("modelhub", run(2000), number=1), row("fastapi", run(1000), number=2)]) == []


def test_targets_are_judged_by_ratio_and_by_p99() -> None:
    rows = [row("modelhub", run(1900, p99=9.0)), row("fastapi", run(1000, p99=5.0))]
    ratio, p99 = verdicts(compared(rows))
    assert "≥ 2 ×" in ratio.promise
    assert not ratio.is_met
    assert not p99.is_met
    rows = [row("modelhub", run(2100, p99=5.0)), row("fastapi", run(1000, p99=5.0))]
    assert [verdict.is_met for verdict in verdicts(compared(rows))] == [True, True]


def test_a_round_that_misses_a_peer_of_another_round_does_not_flatter_us() -> None:
    rows = [
        row("modelhub", run(2000), number=1),
        row("fastapi", run(1000), number=1),
        row("triton", run(2000), number=1),
        row("modelhub", run(2000), number=2),
        row("fastapi", run(1000), number=2),
        row("triton", run(2000), number=3),
    ]
    (comparison,) = compared(rows)
    assert (comparison.ratio, comparison.peer, comparison.rounds) == (1.0, "triton", 1)


def test_cost_and_disturbance_are_medians_of_the_same_runs() -> None:
    rows = [row("fastapi", run(1000, foreign=f, server_us=us)) for f, us in ((0.01, 300), (0.03, 500), (0.02, 310))]
    rows.append(row("fastapi", run(100, foreign=0.4, server_us=9000)))
    (figure,) = figures(rows)
    assert (figure.server_us, figure.foreign_share) == (310, 0.02)
