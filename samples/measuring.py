"""How good a classifier is on examples that it has not seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def metrics(expected: Sequence[int], predicted: Sequence[int], trained_on: Sequence[int]) -> dict[str, float]:
    """What metadata.json keeps as performance_metrics. All three are class numbers; trained_on: of the training side.

    majority_class_accuracy is what always answering the commonest class of the training side would reach.
    """
    majority = Counter(trained_on).most_common(1)[0][0]
    hits = sum(right == answer for right, answer in zip(expected, predicted, strict=True))
    return {
        "accuracy": round(hits / len(expected), 4),
        "macro_f1": round(macro_f1(expected, predicted), 4),
        "test_examples": len(expected),
        "majority_class_accuracy": round(sum(right == majority for right in expected) / len(expected), 4),
    }


def macro_f1(expected: Sequence[int], predicted: Sequence[int]) -> float:
    """Mean over the classes of 2·TP / (2·TP + FP + FN)."""
    pairs = Counter(zip(expected, predicted, strict=True))
    right, answered = Counter(expected), Counter(predicted)
    classes = sorted(right.keys() | answered.keys())
    return sum(2 * pairs[name, name] / (right[name] + answered[name]) for name in classes) / len(classes)
