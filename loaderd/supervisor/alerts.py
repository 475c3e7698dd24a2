"""Alerts as they are opened and closed: one report for each, however often their cause comes and goes meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from loaderd.reporter import AlertReport, Report

QUIET_SECONDS = 60.0  # how long a cause has to stay away until its alert is closed


@dataclass(slots=True)
class _Open:
    """clear_since: since when its cause is away; None: it is there."""

    kind: str
    model_id: str | None
    message: str
    value: float | None
    threshold: float | None
    clear_since: float | None = None


def key_of(kind: str, model_id: str | None) -> str:
    """Stable for one problem of one model, or of the host."""
    return kind if model_id is None else f"{kind}:{model_id}"


class Alerts:
    """The alerts that are open now. What has a cause that holds on is raised and cleared; what happened once is
    opened and closed."""

    def __init__(
        self,
        report: Callable[[Report], None],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._report = report
        self._clock = clock
        self._wall = wall
        self._open: dict[str, _Open] = {}

    def raise_(
        self,
        kind: str,
        model_id: str | None,
        message: str,
        value: float | None = None,
        threshold: float | None = None,
    ) -> None:
        """Its cause is there: reported once, until it was closed."""
        known = self._open.get(key_of(kind, model_id))
        if known is None:
            self.open(kind, model_id, message, value, threshold)
            return
        known.clear_since, known.message, known.value = None, message, value

    def clear(self, kind: str, model_id: str | None) -> None:
        """Its cause is away; the alert is closed when it stays away."""
        known = self._open.get(key_of(kind, model_id))
        if known is not None and known.clear_since is None:
            known.clear_since = self._clock()

    def open(
        self,
        kind: str,
        model_id: str | None,
        message: str,
        value: float | None = None,
        threshold: float | None = None,
    ) -> None:
        """Something happened: reported, again when it is told otherwise than before."""
        key = key_of(kind, model_id)
        known = self._open.get(key)
        opened = self._open[key] = _Open(kind, model_id, message, value, threshold)
        if known is None or known.message != message:
            self._tell(key, opened, is_open=True)

    def close(self, kind: str, model_id: str | None) -> None:
        """Closed at once; nothing when it is not open."""
        key = key_of(kind, model_id)
        known = self._open.pop(key, None)
        if known is not None:
            self._tell(key, known, is_open=False)

    def tick(self) -> None:
        """Closes those whose cause stayed away long enough."""
        now = self._clock()
        for known in list(self._open.values()):
            if known.clear_since is not None and now - known.clear_since >= QUIET_SECONDS:
                self.close(known.kind, known.model_id)

    def _tell(self, key: str, alert: _Open, *, is_open: bool) -> None:
        self._report(
            AlertReport(
                key=key,
                kind=alert.kind,
                model_id=alert.model_id,
                message=alert.message,
                at=self._wall(),
                is_open=is_open,
                value=alert.value,
                threshold=alert.threshold,
            )
        )
