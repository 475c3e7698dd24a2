"""What is true now, as far as loaderd was heard: a silent loaderd makes `unreachable`, never a stale `loaded`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from django.utils import timezone

from loaderd.client import LoaderClient
from loaderd.errors import LoaderdError
from loaderd.states import ModelState
from modelhub.conf import config
from modelhub.lifecycle.models import LoaderStatus, StateChange
from modelhub.registry.models import ModelVersion

Measured = TypeVar("Measured")
UNREACHABLE = "unreachable"
# loaderd is heard every second; a few may be lost to a busy machine.
SILENCE_SECONDS = 5.0
# How long a page or an answer waits for loaderd's word of this moment.
LOOK_SECONDS = 1.0

_HELD = frozenset({ModelState.LOADING, ModelState.LOADED, ModelState.UNLOADING})


@dataclass(frozen=True, slots=True)
class LoaderView:
    """What loaderd last said of itself. All None before its first start.

    reachable: it was heard in the last seconds and has not said goodbye. started_at: of the daemon.
    """

    reachable: bool
    pid: int | None = None
    boot_id: str = ""
    started_at: datetime | None = None
    observed_at: datetime | None = None
    stopped_at: datetime | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> str:
        """What models compute on, as measurements name it."""
        return device_of(self.facts)

    def why_unreachable(self) -> str:
        """A clause for people: since when it is silent and whether it was stopped."""
        if self.stopped_at is not None:
            return f"it was stopped at {self.stopped_at:%Y-%m-%d %H:%M:%S %Z}"
        if self.observed_at is None:
            return "it has never run"
        return f"it was last heard at {self.observed_at:%Y-%m-%d %H:%M:%S %Z}"


def device_of(facts: Mapping[str, Any]) -> str:
    """The names of the GPUs in a daemon's facts, or "cpu": what was measured on one does not hold on another."""
    names = [str(gpu.get("name", "")) for gpu in facts.get("gpus") or ()]
    return (", ".join(names) or "cpu")[:200]


def loader_view() -> LoaderView:
    """One query."""
    status = LoaderStatus.objects.filter(pk=1).first()
    if status is None or status.observed_at is None:
        return LoaderView(reachable=False)
    is_heard = timezone.now() - status.observed_at < timedelta(seconds=SILENCE_SECONDS)
    return LoaderView(
        reachable=is_heard and status.stopped_at is None,
        pid=status.pid,
        boot_id=status.boot_id,
        started_at=status.started_at,
        observed_at=status.observed_at,
        stopped_at=status.stopped_at,
        facts=status.facts,
    )


def up_to_date(loader: LoaderView) -> tuple[LoaderView, Mapping[str, Any]]:
    """loaderd and its models as of one moment: (the view, what each process holds by model_id: {"private_bytes", …}).

    When a model has moved since loaderd was heard last, its figures are older than the registry's rows: then loaderd is
    asked, and the view is of now. Otherwise, and when it does not answer in time, the view is as it was and the
    mapping empty: the rows have the figures of the same heartbeat. One query.
    """
    moved_at = StateChange.objects.values_list("at", flat=True).first()
    if not loader.reachable or loader.observed_at is None or moved_at is None or moved_at <= loader.observed_at:
        return loader, {}
    try:
        told = LoaderClient(config().control_socket, LOOK_SECONDS).status()
    except LoaderdError:
        return loader, {}
    return replace(loader, facts=told["facts"], observed_at=timezone.now()), told["models"]


def effective_status(version: ModelVersion, loader: LoaderView) -> str:
    """The observed status, or `unreachable` for what loaderd last held while it is silent. No query."""
    if not loader.reachable and version.status in _HELD:
        return UNREACHABLE
    return str(version.status)


def reason_of(version: ModelVersion, loader: LoaderView) -> str:
    """Why it is in the status that effective_status() tells. No query."""
    if effective_status(version, loader) != UNREACHABLE:
        return str(version.status_reason)
    return f"loaderd is away ({loader.why_unreachable()}); before, it was {version.status}: {version.status_reason}"


def known(measured: Measured | None, status: str) -> Measured | None:
    """What was measured of a model's process, or None while nobody knows whether it lives.

    status: what effective_status() told.
    """
    return None if status == UNREACHABLE else measured
