"""A classifier of texts that lives in the test: it answers by rule, and can be away, fail, or refuse a text."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from loaderd.errors import InvalidInput, LoaderdError
from modelhub.inference import client

SIGNATURE: dict[str, Any] = {
    "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
    "outputs": [
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]},
    ],
    "labels": ["negative", "positive"],
}
ROWS_SIGNATURE: dict[str, Any] = {
    "inputs": [{"name": "features", "datatype": "FP32", "shape": [-1, 3]}],
    "outputs": [{"name": "value", "datatype": "FP32", "shape": [-1]}],
    "labels": None,
}
REFUSED = "refuse me"


def answer_to(item: Any) -> dict[str, Any]:
    """What the model says, the same every time."""
    if isinstance(item, str):
        score = (len(item) % 10 + 5) / 20
        return {
            "label": "positive" if score >= 0.5 else "negative",
            "score": max(score, 1 - score),
            "scores": {"negative": 1 - score, "positive": score},
        }
    return {"output": float(sum(item))}


class Model:
    """errors: raised one after another, before anything is answered. asked: the sizes of the requests. refused: the
    text that it takes for wrong. others_seconds: how those are answered who ask besides."""

    def __init__(self) -> None:
        self.errors: list[LoaderdError] = []
        self.asked: list[int] = []
        self.headers: list[bool] = []
        self.refused = REFUSED
        self.others_seconds: float | None = None
        self.on_asked: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    def predict(
        self, model_id: str, inputs: Sequence[Any], *, user: str, timeout_seconds: float, is_bulk: bool = False
    ) -> dict[str, Any]:
        with self._lock:
            self.asked.append(len(inputs))
            self.headers.append(is_bulk)
            self.on_asked()
            if self.errors:
                raise self.errors.pop(0)
        for index, item in enumerate(inputs):
            if item == self.refused:
                raise InvalidInput(f"Item {index} is refused.")
        return {
            "model_id": model_id,
            "version": "1.0",
            "predictions": [answer_to(item) for item in inputs],
            "latency_ms": 0.1 * len(inputs),
            **({} if self.others_seconds is None else {"others_seconds": self.others_seconds}),
        }


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    made = Model()
    monkeypatch.setattr(client, "predict", made.predict)
    return made
