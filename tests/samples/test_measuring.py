from __future__ import annotations

import pytest

from samples.measuring import macro_f1, metrics


def test_metrics_tell_accuracy_beside_what_guessing_the_commonest_class_reaches() -> None:
    assert metrics(expected=[0, 0, 1, 2], predicted=[0, 1, 1, 2], trained_on=[1, 1, 0]) == {
        "accuracy": 0.75,
        "macro_f1": 0.7778,
        "test_examples": 4,
        "majority_class_accuracy": 0.25,
    }


def test_macro_f1_weighs_every_class_alike() -> None:
    sklearn_says = (2 * 98 / (98 + 99) + 2 / 3) / 2
    assert macro_f1([0] * 98 + [1, 1], [0] * 98 + [0, 1]) == pytest.approx((2 * 98 / 197 + 2 / 3) / 2)
    assert macro_f1([0] * 98 + [1, 1], [0] * 98 + [0, 1]) == pytest.approx(sklearn_says)


def test_macro_f1_of_a_class_that_is_never_answered_is_zero() -> None:
    assert macro_f1([0, 1], [0, 0]) == pytest.approx((2 / 3 + 0) / 2)
