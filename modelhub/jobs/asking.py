"""Asks a model for many rows at a time, and finds out which of them it cannot answer."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from loaderd.errors import (
    InsufficientMemory,
    InvalidInput,
    LoaderdError,
    LoaderUnreachable,
    ModelNotLoaded,
    ModelProcessDied,
    ModelRestarting,
    ModelTimeout,
    Overloaded,
    PredictionFailed,
    ShuttingDown,
    UnknownModel,
)
from modelhub.inference import client
from modelhub.jobs.pacing import Pace

# It may be otherwise in a moment. UnknownModel: loaderd was started again and has not been told of its models yet.
PASSING = (
    InsufficientMemory,
    LoaderUnreachable,
    ModelNotLoaded,
    ModelRestarting,
    Overloaded,
    ShuttingDown,
    UnknownModel,
)
# Because of what was asked, perhaps of one row only.
_OF_INPUT = (InvalidInput, PredictionFailed)
_OF_SIZE = (ModelProcessDied, ModelTimeout)
RETRY_SECONDS = (0.05, 0.2, 0.5, 1.0, 2.0)
FATAL_TRIES = 2  # of a row with which the model's process died or that took too long

logger = logging.getLogger(__name__)


class MustWait(Exception):
    """The model cannot answer for now, whatever is asked. `error` says why."""

    def __init__(self, error: LoaderdError) -> None:
        super().__init__(error.message)
        self.error = error


class Stopped(Exception):
    """Somebody wants it to end here."""


@dataclass(slots=True)
class Asker:
    """Asks one version, with low priority. timeout_seconds: of one request. patience_seconds: how long it tries before
    it says that one must wait.

    stop: set when it shall end; on_waiting is told why nothing goes on.
    """

    model_id: str
    user: str
    timeout_seconds: float
    pace: Pace
    patience_seconds: float
    stop: threading.Event
    on_waiting: Callable[[LoaderdError], None] = lambda error: None

    def predictions(self, items: Sequence[Any]) -> list[dict[str, Any] | LoaderdError]:
        """An answer for each item, or why there is none for it. Raises MustWait, Stopped, or another LoaderdError."""
        if not items:
            return []
        error: LoaderdError | None = None
        for _ in range(FATAL_TRIES):
            try:
                return list(self._answered(items))
            except _OF_INPUT as refused:
                error = refused
                break
            except _OF_SIZE as failed:
                error = failed
                if len(items) > 1:
                    break
        assert error is not None
        if len(items) == 1:
            return [error]
        half = len(items) // 2
        return [*self.predictions(items[:half]), *self.predictions(items[half:])]

    def _answered(self, items: Sequence[Any]) -> list[dict[str, Any]]:
        since, tries = time.monotonic(), 0
        while True:
            try:
                answer = client.predict(
                    self.model_id, items, user=self.user, timeout_seconds=self.timeout_seconds, is_bulk=True
                )
                break
            except PASSING as error:
                if time.monotonic() - since >= self.patience_seconds:
                    raise MustWait(error) from error
                self.on_waiting(error)
                self._rest(RETRY_SECONDS[min(tries, len(RETRY_SECONDS) - 1)])
                tries += 1
        seconds = answer["latency_ms"] / 1000
        self._rest(self.pace.took(len(items), seconds, answer.get("others_seconds")))
        predictions: list[dict[str, Any]] = answer["predictions"]
        return predictions

    def _rest(self, seconds: float) -> None:
        if seconds and self.stop.wait(seconds):
            raise Stopped
