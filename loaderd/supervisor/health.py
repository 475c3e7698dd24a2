"""Is each loaded model well, and does somebody need to look? Judged here, reported to the registry.

Pure judging: the daemon tells what it saw, the clock is given, and nothing here talks to a process. What is
judged, and every threshold, is in docs/health.md.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from loaderd import histogram
from loaderd.reporter import HealthReport, Report
from loaderd.rules import Rules
from loaderd.supervisor.alerts import Alerts

Sign = Literal["silent", "busy", "door"]  # what a hang is seen by

HEALTHY, DEGRADED, UNHEALTHY = "healthy", "degraded", "unhealthy"

WINDOW_SECONDS = 60.0  # what error rate and latency are judged by
WINDOW_STEP_SECONDS = 5.0  # how finely the window moves
MIN_REQUESTS = 10  # of the window; fewer tell nothing of a rate
BROKEN_PERCENT = 50.0  # from this error rate on a model is unhealthy, not only degraded
RELIEF = 0.8  # a rate that was too high counts as mended below this share of its threshold
RETRY_SECONDS = 15.0  # a canary that failed is run again this soon
REPORT_SECONDS = 60.0  # at the latest
STALL_SECONDS = 5.0  # a longer gap between two ticks is the daemon's own silence, not its models'
STEADY_SECONDS = 600.0  # without a death, until the alert of the restarts is closed
THRASH_SECONDS = 300.0  # loaded again so soon after its eviction: the eviction was for nothing
THRASH_WINDOW_SECONDS = 1800.0
THRASH_RETURNS = 3  # such returns within the window
REFUSAL_SECONDS = 600.0  # without another refusal, until its alert is closed
MEMORY_RELIEF_PERCENT = 3.0  # of the budget, below the threshold


@dataclass(frozen=True, slots=True)
class _Mark:
    """The cumulative counters at one time."""

    at: float
    requests: int
    errors: int
    histogram: tuple[int, ...]


@dataclass(slots=True)
class _Watch:
    """A loaded model's process. Times are of the monotonic clock, *_unix ones of the wall's."""

    heard_at: float
    heard_unix: float
    door_silent_since: float | None = None  # no connection to its data socket is answered
    lost: int = 0  # requests that its connections lost: no process counted them
    marks: deque[_Mark] = field(default_factory=deque)
    newest: _Mark | None = None
    busy_seconds: float = 0.0
    missing_processes: int = 0  # of those that serve it together
    stays_short: bool = False  # and they are not started again
    why_short: str = ""  # what they wait for
    is_refused: bool = False  # and there is no memory for them
    canary_asked: bool = False
    canary_at: float = 0.0
    canary_unix: float | None = None
    canary_ok: bool | None = None
    canary_seconds: float | None = None
    canary_reason: str = ""
    status: str = HEALTHY
    reason: str = ""
    raised: set[str] = field(default_factory=set)  # of the rates that are too high at the moment
    reported_at: float = float("-inf")
    ended: bool = False  # it hung, and was given up

    def door_silence(self, now: float) -> float:
        """Seconds since a knock at its data socket went unanswered for the first time in a row; 0.0 when it answers."""
        return 0.0 if self.door_silent_since is None else now - self.door_silent_since


class Health:
    """One per daemon. All is called from its event loop.

    report: takes the reports. rules: the present ones. end_hung(model_id, why, sign) has a process killed that
    does not move any more. clock: monotonic seconds; wall: unix seconds.
    """

    def __init__(
        self,
        report: Callable[[Report], None],
        rules: Callable[[], Rules],
        end_hung: Callable[[str, str, Sign], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._report = report
        self._rules = rules
        self._end_hung = end_hung
        self._clock = clock
        self._wall = wall
        self._alerts = Alerts(report, clock, wall)
        self._watches: dict[str, _Watch] = {}
        self._died_at: dict[str, float] = {}
        self._refused_at: dict[str, float] = {}
        self._evicted_at: dict[str, float] = {}
        self._returns: dict[str, deque[float]] = {}  # loads again so soon after an eviction
        self._ticked_at = clock()

    # What the daemon tells

    def loaded(self, model_id: str, canary: Mapping[str, Any] | None, load_seconds: float) -> None:
        """It became loaded. canary: of the process' `ready` event: {"ok", "seconds", …}, None when it ran none."""
        now, unix = self._clock(), self._wall()
        watch = self._watches[model_id] = _Watch(heard_at=now, heard_unix=unix, canary_at=now)
        watch.marks.append(_Mark(now, 0, 0, ()))
        if canary is not None:
            watch.canary_unix, watch.canary_ok = unix, bool(canary.get("ok", True))
            watch.canary_seconds = canary.get("seconds")
            watch.canary_reason = str(canary.get("reason", ""))
        self._judge_load(model_id, load_seconds)
        self._refused_at.pop(model_id, None)
        self._alerts.close("gave_up", model_id)
        self._alerts.close("no_memory", model_id)
        self._judge(model_id, watch, report=True)

    def left(self, model_id: str) -> None:
        """It is not loaded any more: died, or was unloaded. Harmless when it was not."""
        watch = self._watches.pop(model_id, None)
        if watch is not None:
            if watch.stays_short:
                self._alerts.close("gave_up", model_id)
            if watch.is_refused:
                self._alerts.close("no_memory", model_id)
            for kind in ("error_rate", "unhealthy", "load_seconds"):
                self._alerts.close(kind, model_id)

    def dismissed(self, model_id: str) -> None:
        """A person took over (loads or unloads it): what was wrong before needs nobody's eye any more."""
        self._died_at.pop(model_id, None)
        self._refused_at.pop(model_id, None)
        for kind in ("gave_up", "restarts", "no_memory"):
            self._alerts.close(kind, model_id)

    def counted(self, model_id: str, counters: Mapping[str, Any] | None) -> None:
        """A look at its counters; None: it did not answer."""
        watch = self._watches.get(model_id)
        if watch is None or counters is None:
            return
        now = self._clock()
        watch.heard_at, watch.heard_unix = now, self._wall()
        watch.busy_seconds = float(counters.get("busy_seconds", 0.0))
        watch.missing_processes = int(counters.get("missing_processes", 0))
        if not watch.missing_processes:
            watch.why_short = ""
            if watch.stays_short:
                watch.stays_short = False
                self._alerts.close("gave_up", model_id)
            if watch.is_refused:
                watch.is_refused = False
                self._alerts.close("no_memory", model_id)
        mark = _Mark(
            now,
            counters["requests"] + watch.lost,
            counters["errors"] + watch.lost,
            tuple(counters.get("histogram", ())),
        )
        watch.newest = mark
        if not watch.marks or now - watch.marks[-1].at >= WINDOW_STEP_SECONDS:
            watch.marks.append(mark)
        while len(watch.marks) > 1 and watch.marks[1].at <= now - WINDOW_SECONDS:
            watch.marks.popleft()

    def survived(self, model_id: str) -> None:
        """One of several processes ended; the others serve the model."""
        watch = self._watches.get(model_id)
        if watch is not None:
            watch.ended = False
            watch.heard_at, watch.door_silent_since, watch.busy_seconds = self._clock(), None, 0.0

    def is_short(self, model_id: str, why: str, *, refused: bool) -> None:
        """Some of several processes are not there, and wait; the others serve the model. why: in words, with how many
        serve it. refused: there is no memory for them: an alert until they are all there."""
        watch = self._watches.get(model_id)
        if watch is None:
            return
        is_news = not watch.why_short or refused > watch.is_refused
        watch.why_short, watch.missing_processes = why, watch.missing_processes or 1
        if refused:
            watch.is_refused = True
            self._alerts.raise_("no_memory", model_id, f"{model_id}: {why}")
        if is_news:
            self._judge(model_id, watch, report=True)

    def stays_short(self, model_id: str, why: str) -> None:
        """Some of several processes keep dying and are not started again; the others serve the model."""
        watch = self._watches.get(model_id)
        if watch is not None:
            watch.stays_short = True
            self._alerts.open("gave_up", model_id, why)

    def lost(self, model_id: str, requests: int) -> None:
        """So many requests ended in an error of the connection to its process."""
        watch = self._watches.get(model_id)
        if watch is not None:
            watch.lost += requests

    def knocked(self, model_id: str, answers: bool | None) -> None:
        """Whether its data socket answered. answers: False when it refuses clients though the process lives, which
        nothing but another process mends; None when no answer came in time."""
        watch = self._watches.get(model_id)
        if watch is None or watch.ended:
            return
        if answers is None:
            watch.door_silent_since = watch.door_silent_since or self._clock()
        elif answers:
            watch.door_silent_since = None
        else:
            watch.ended = True
            self._end_hung(model_id, "its door does not answer: its data socket takes no connection", "door")

    def due(self) -> list[str]:
        """Models whose canary is due now; each is named once until `checked` tells of it."""
        now = self._clock()
        interval = self._rules().health_check_interval_seconds
        found = []
        for model_id, watch in self._watches.items():
            wait = min(interval, RETRY_SECONDS) if watch.canary_ok is False else interval
            if not watch.canary_asked and not watch.ended and now - watch.canary_at >= wait:
                watch.canary_asked = True
                found.append(model_id)
        return found

    def checked(self, model_id: str, result: Mapping[str, Any] | None) -> None:
        """A canary's answer, {"ok", "seconds", "reason"}; None: none in time."""
        watch = self._watches.get(model_id)
        if watch is None:
            return
        watch.canary_asked, watch.canary_at, watch.canary_unix = False, self._clock(), self._wall()
        if result is None:
            watch.canary_ok, watch.canary_seconds = False, None
            watch.canary_reason = "its canary was not answered in time"
        else:
            watch.canary_ok, watch.canary_seconds = bool(result["ok"]), result.get("seconds")
            watch.canary_reason = str(result.get("reason", ""))
        self._judge(model_id, watch, report=True)

    def died(self, model_id: str, attempt: int, gave_up: bool) -> None:
        """Its process ended without being told to. attempt: the restart that follows, from 1; gave_up: none does."""
        self.left(model_id)
        self._died_at[model_id] = self._clock()
        if gave_up:
            self._alerts.close("restarts", model_id)
            told = f"{model_id} died again and again and is not restarted any more."
            self._alerts.open("gave_up", model_id, told, float(attempt))
        else:
            told = f"The process of {model_id} died{' again' * (attempt > 1)}; it is restarted (attempt {attempt})."
            self._alerts.open("restarts", model_id, told, float(attempt))

    def gave_up(self, model_id: str, why: str) -> None:
        """Its restart failed for a reason that would only repeat itself, and none follows. why: the error, in words."""
        self.left(model_id)
        self._died_at.pop(model_id, None)
        self._alerts.close("restarts", model_id)
        told = f"The process of {model_id} died, and it could not be started again: {why}"
        self._alerts.open("gave_up", model_id, told)

    def evicted(self, model_id: str) -> None:
        """It had to go for another."""
        self._evicted_at[model_id] = self._clock()

    def admitted(self, model_id: str) -> None:
        """A load of it begins."""
        now = self._clock()
        evicted_at = self._evicted_at.pop(model_id, None)
        if evicted_at is not None and now - evicted_at <= THRASH_SECONDS:
            self._returns.setdefault(model_id, deque()).append(now)

    def memory(self, used_bytes: int, budget_bytes: int | None) -> None:
        """What all models hold, and what they may."""
        if not budget_bytes:
            self._alerts.clear("memory", None)
            self._alerts.clear("over_budget", None)
            return
        percent, threshold = 100.0 * used_bytes / budget_bytes, self._rules().alert_memory_percent
        told = f"The models hold {used_bytes / 2**20:.0f} MiB of {budget_bytes / 2**20:.0f} MiB"
        if percent > threshold:
            self._alerts.raise_("memory", None, f"{told}, {percent:.0f} % of the budget.", round(percent, 1), threshold)
        elif percent <= threshold - MEMORY_RELIEF_PERCENT:
            self._alerts.clear("memory", None)
        if used_bytes > budget_bytes:
            self._alerts.raise_(
                "over_budget", None, f"{told}: more than the budget.", float(used_bytes), float(budget_bytes)
            )
        else:
            self._alerts.clear("over_budget", None)

    def refused(self, model_id: str, message: str) -> None:
        """A model that should be loaded does not fit; told again for as long as it does not. message: the sum, in
        words. One alert however often: open until the model is loaded or dismissed, or not refused any more."""
        self._refused_at[model_id] = self._clock()
        self._alerts.raise_("no_memory", model_id, message)

    def tick(self) -> None:
        """Judges all, once a second: reports what changed, ends what hangs, opens and closes alerts."""
        now = self._clock()
        silence = now - self._ticked_at
        self._ticked_at = now
        if silence > STALL_SECONDS:
            # The daemon itself stood still (stopped, or starved of the processor): nobody could be heard.
            for watch in self._watches.values():
                watch.heard_at += silence
                watch.door_silent_since = None
        for model_id, watch in list(self._watches.items()):
            if not watch.ended:
                self._judge(model_id, watch)
                self._end_if_hung(model_id, watch)
        self._judge_deaths(now)
        self._judge_thrashing(now)
        self._alerts.tick()

    def facts_of(self, model_id: str) -> dict[str, Any]:
        """{"status", "reason", "heartbeat_at", "canary_at", "canary_ok", "canary_seconds"} of a loaded model, {} of
        any other. Times are unix seconds."""
        watch = self._watches.get(model_id)
        if watch is None:
            return {}
        return {
            "status": watch.status,
            "reason": watch.reason,
            "heartbeat_at": watch.heard_unix,
            "canary_at": watch.canary_unix,
            "canary_ok": watch.canary_ok,
            "canary_seconds": watch.canary_seconds,
        }

    # Judging

    def _judge(self, model_id: str, watch: _Watch, *, report: bool = False) -> None:
        now = self._clock()
        unhealthy, degraded = self._findings(model_id, watch, now)
        status = UNHEALTHY if unhealthy else DEGRADED if degraded else HEALTHY
        reason = "; ".join(unhealthy + degraded) or ("answers its canary" if watch.canary_ok else "answers")
        changed = status != watch.status
        watch.status, watch.reason = status, reason
        if unhealthy:
            self._alerts.raise_("unhealthy", model_id, f"{model_id}: {reason}.")
        else:
            self._alerts.clear("unhealthy", model_id)
        if report or changed or now - watch.reported_at >= REPORT_SECONDS:
            watch.reported_at = now
            self._report(
                HealthReport(
                    model_id=model_id,
                    status=status,
                    reason=reason,
                    at=self._wall(),
                    heartbeat_at=watch.heard_unix,
                    canary_at=watch.canary_unix,
                    canary_ok=watch.canary_ok,
                    canary_seconds=watch.canary_seconds,
                )
            )

    def _findings(self, model_id: str, watch: _Watch, now: float) -> tuple[list[str], list[str]]:
        """(what makes it unhealthy, what degrades it), in words."""
        rules = self._rules()
        unhealthy: list[str] = []
        degraded: list[str] = []
        silence = now - watch.heard_at
        if silence >= rules.hang_seconds / 2:
            unhealthy.append(f"no sign of life for {silence:.0f} s")
        elif (unanswered := watch.door_silence(now)) >= rules.hang_seconds / 2:
            unhealthy.append(f"its door has not answered for {unanswered:.0f} s")
        if watch.canary_ok is False:
            unhealthy.append(watch.canary_reason or "its canary failed")
        elif watch.canary_seconds is not None and watch.canary_seconds > rules.slow_seconds:
            degraded.append(f"its canary took {watch.canary_seconds:.1f} s")
        if watch.busy_seconds >= rules.hang_seconds / 2:
            degraded.append(f"one model call has been running for {watch.busy_seconds:.0f} s")
        if watch.missing_processes:
            degraded.append(
                watch.why_short or f"{watch.missing_processes} of its processes died and is not there again yet"
            )
        self._judge_rates(model_id, watch, rules, unhealthy, degraded)
        return unhealthy, degraded

    def _judge_rates(
        self, model_id: str, watch: _Watch, rules: Rules, unhealthy: list[str], degraded: list[str]
    ) -> None:
        requests, errors, latencies = _of_window(watch)
        if requests < MIN_REQUESTS:
            watch.raised.clear()
            self._alerts.clear("error_rate", model_id)
            return
        percent = 100.0 * errors / requests
        if self._too_high(watch, "errors", percent, rules.alert_error_rate_percent):
            told = f"{percent:.0f} % of its last {requests} answers were errors"
            (unhealthy if percent >= max(BROKEN_PERCENT, rules.alert_error_rate_percent) else degraded).append(told)
            self._alerts.raise_(
                "error_rate", model_id, f"{model_id}: {told}.", round(percent, 1), rules.alert_error_rate_percent
            )
        else:
            self._alerts.clear("error_rate", model_id)
        p95 = histogram.quantile(latencies, 0.95)
        if p95 is not None and self._too_high(watch, "latency", p95, rules.slow_seconds):
            degraded.append(f"one of twenty answers took longer than {p95:.1f} s")

    @staticmethod
    def _too_high(watch: _Watch, name: str, value: float, threshold: float) -> bool:
        """Past its threshold, or was and has not come down far enough to count as mended."""
        if value > threshold or (name in watch.raised and value > threshold * RELIEF):
            watch.raised.add(name)
            return True
        watch.raised.discard(name)
        return False

    def _judge_load(self, model_id: str, load_seconds: float) -> None:
        threshold = self._rules().alert_load_seconds
        if load_seconds > threshold:
            self._alerts.open(
                "load_seconds",
                model_id,
                f"{model_id} took {load_seconds:.1f} s to load, more than {threshold:g} s.",
                round(load_seconds, 2),
                threshold,
            )
        else:
            self._alerts.close("load_seconds", model_id)

    def _end_if_hung(self, model_id: str, watch: _Watch) -> None:
        limit = self._rules().hang_seconds
        silence = self._clock() - watch.heard_at
        why = ""
        sign: Sign = "silent"
        if silence > limit:
            why = f"its process gave no sign of life for {silence:.0f} s (the limit is {limit:g} s)"
        elif watch.busy_seconds > limit:
            why, sign = f"one model call ran for {watch.busy_seconds:.0f} s (the limit is {limit:g} s)", "busy"
        elif (unanswered := watch.door_silence(self._clock())) > limit:
            why, sign = f"its door does not answer, for {unanswered:.0f} s (the limit is {limit:g} s)", "door"
        if why:
            watch.ended = True  # once: the process takes a moment to die
            self._end_hung(model_id, why, sign)

    def _judge_deaths(self, now: float) -> None:
        for model_id, died_at in list(self._died_at.items()):
            if now - died_at >= STEADY_SECONDS:
                del self._died_at[model_id]
                self._alerts.close("restarts", model_id)
        for model_id, refused_at in list(self._refused_at.items()):
            if now - refused_at >= REFUSAL_SECONDS:
                del self._refused_at[model_id]
                self._alerts.close("no_memory", model_id)

    def _judge_thrashing(self, now: float) -> None:
        for model_id, evicted_at in list(self._evicted_at.items()):
            if now - evicted_at > THRASH_SECONDS:
                del self._evicted_at[model_id]
        for model_id, returns in list(self._returns.items()):
            while returns and now - returns[0] > THRASH_WINDOW_SECONDS:
                returns.popleft()
            if len(returns) >= THRASH_RETURNS:
                self._alerts.raise_(
                    "thrashing",
                    model_id,
                    f"{model_id} was evicted and loaded again {len(returns)} times within "
                    f"{THRASH_WINDOW_SECONDS / 60:.0f} minutes; the budget is too small for what is asked.",
                    float(len(returns)),
                    float(THRASH_RETURNS),
                )
            else:
                self._alerts.clear("thrashing", model_id)
            if not returns:
                del self._returns[model_id]


def _of_window(watch: _Watch) -> tuple[int, int, list[int]]:
    """(requests, errors, histogram of latencies) of the last minute."""
    if watch.newest is None or not watch.marks:
        return 0, 0, []
    first, last = watch.marks[0], watch.newest
    return (
        last.requests - first.requests,
        last.errors - first.errors,
        histogram.subtracted(last.histogram, first.histogram),
    )
