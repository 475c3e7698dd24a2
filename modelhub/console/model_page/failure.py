"""What failed last with a model: the reason, the signal, the end of its log, the next step and the button for it."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from loaderd.states import ModelState
from modelhub.console.advice import advice_for
from modelhub.console.model_page.logs import tail
from modelhub.lifecycle.models import Operation, OperationKind, OperationStatus
from modelhub.registry.models import ModelVersion

SHOWN_LINES = 20
# The operation that failed and the state that says so are written one after the other.
SAME_MOMENT = timedelta(seconds=10)

_NOUNS = {OperationKind.LOAD: "load", OperationKind.ACTIVATE: "activation", OperationKind.ROLLBACK: "rollback"}
_SIGNAL = re.compile(r"\bSIG[A-Z]{2,6}\b")


# The tabs of the page where one looks next, by the code.
_LOG, _FILES, _POLICY = ("log", "See its log"), ("files", "See its files"), ("policy", "See its policy")
_TABS: Mapping[str, Sequence[tuple[str, str]]] = {
    "artifact_refused": [_FILES],
    "artifact_changed": [_FILES],
    "canary_failed": [_FILES],
    "unknown_framework": [_FILES],
    "insufficient_memory": [_POLICY],
    "model_timeout": [_LOG, _POLICY],
    "overloaded": [_POLICY],
}


@dataclass(frozen=True, slots=True)
class Failure:
    """What a page says on top. exit_signal: "SIGSEGV", or "" when no signal ended its process.

    error: as `to_message()` told it, as far as it is kept. tabs: (name, title) of where to look.
    """

    title: str
    at: datetime
    message: str
    exit_signal: str
    advice: str
    log_tail: Sequence[str]
    error: Mapping[str, Any]
    tabs: Sequence[tuple[str, str]]

    @property
    def code(self) -> str:
        return str(self.error.get("code") or "")


def failure_of(version: ModelVersion, newest: Operation | None) -> Failure | None:
    """What to say of a model that failed and has not been well since; None of one that is. Reads its log, no query.

    newest: its newest load, activation or rollback, or None.
    """
    has_failed = newest is not None and newest.status == OperationStatus.FAILED
    is_error = version.status == ModelState.ERROR
    if is_error:
        at = version.status_changed_at
        told = newest if has_failed and newest is not None and _is_about(newest, at) else None
        error = dict(told.error or {}) if told is not None else {}
        message = str(error.get("message") or version.status_reason or version.last_error)
        title = "Its process died" if version.status_cause in ("crashed", "hung") else "Its load failed"
    elif newest is not None and has_failed and _still_matters(version, newest):
        at, error = newest.finished_at or newest.requested_at, dict(newest.error or {})
        message = str(error.get("message") or "Nothing says why; see loaderd's log.")
        title = f"The last {_NOUNS[newest.kind]} failed"
    else:
        return None
    facts = _facts(error, message, version if is_error else None)
    code = str(error.get("code") or "")
    return Failure(
        title=title,
        at=at,
        message=message,
        exit_signal=_signal_in(facts, message),
        advice=advice_for({"code": code, "facts": facts}, version.model_id),
        log_tail=_tail(facts, version, is_error=is_error, code=code),
        error={**error, "code": code, "facts": facts},
        tabs=[_LOG, _POLICY] if facts.get("out_of_memory") else _TABS.get(code, [_LOG]),
    )


def _still_matters(version: ModelVersion, failed: Operation) -> bool:
    """A load that failed does when it is not loaded since; an activation does, for another version answers."""
    return version.status == ModelState.UNLOADED or failed.kind != OperationKind.LOAD


def _is_about(operation: Operation, at: datetime) -> bool:
    ended_at = operation.finished_at or operation.requested_at
    return abs(ended_at - at) < SAME_MOMENT or ended_at > at


def _facts(error: Mapping[str, Any], message: str, version: ModelVersion | None) -> dict[str, Any]:
    """The error's own; of a process that died while it served the registry keeps a sentence and a cause."""
    facts = dict(error.get("facts") or {})
    if not facts and version is not None:
        facts["hung"] = version.status_cause == "hung"
        facts["out_of_memory"] = "out of memory" in message
        if found := _SIGNAL.search(message):
            facts["exit_signal"] = found.group()
    return facts


def _signal_in(facts: Mapping[str, Any], message: str) -> str:
    number = facts.get("exit_signal")
    if isinstance(number, int):
        try:
            return signal.Signals(number).name
        except ValueError:
            return f"signal {number}"
    found = _SIGNAL.search(str(number or message))
    return found.group() if found else ""


def _tail(facts: Mapping[str, Any], version: ModelVersion, *, is_error: bool, code: str) -> list[str]:
    """As it was when it failed, where that is known; else the log's end, when it has to do with it."""
    told = facts.get("log_tail")
    if told:
        return (told if isinstance(told, list) else str(told).splitlines())[-SHOWN_LINES:]
    return list(tail(version.model_id, SHOWN_LINES).lines) if is_error and code != "artifact_refused" else []
