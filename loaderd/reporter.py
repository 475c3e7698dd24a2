"""How loaderd tells the registry what is true, and asks it for what should be: an interface, no database.

`modelhub.lifecycle.reporting` implements it. `report()` never blocks and never raises: the implementation
queues, and keeps what it could not write (Postgres restarting) until it can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from loaderd.protocol import ModelSpec
from loaderd.states import LoadPhase, ModelState


@dataclass(frozen=True, slots=True)
class ModelRuntime:
    """What was observed of one model's process. Times are unix seconds.

    private_bytes: USS, what ends with the process. pss_bytes: its fair share of what it shares.
    gpu_bytes: by NVML for this pid; None without a GPU.
    """

    pid: int | None = None
    started_at: float | None = None
    phase: LoadPhase | None = None
    private_bytes: int | None = None
    pss_bytes: int | None = None
    gpu_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class StateReport:
    """A model moved to `state` at `at`. operation_id: the command behind it, or None (crash, reconcile).

    error: `LoaderdError.to_message()` when state is ERROR. load_seconds: from accepted to answering, with
    phase_seconds its parts, when state is LOADED. freed_bytes: measured, when state is UNLOADED.
    signature: {"inputs": [{name, datatype, shape}], "outputs": [...], "labels": [...] | None,
    "sample_input": {"inputs": [...]} } when state is LOADED.
    """

    model_id: str
    state: ModelState
    reason: str
    at: float
    operation_id: str | None = None
    digest: str | None = None
    runtime: ModelRuntime = ModelRuntime()
    load_seconds: float | None = None
    phase_seconds: Mapping[str, float] = field(default_factory=dict)
    freed_bytes: int | None = None
    signature: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class OperationProgress:
    """A running operation reached `phase`; progress is the share done within it, 0.0 to 1.0."""

    operation_id: str
    model_id: str
    phase: LoadPhase
    progress: float
    at: float


@dataclass(frozen=True, slots=True)
class OperationEnded:
    """An operation is over. result: JSON for the caller when it succeeded; error: `to_message()` when not."""

    operation_id: str
    at: float
    result: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The daemon lives, and this is what it sees. Sent every second or so.

    facts: pid, boot_id, started_at, versions, host memory, gpus ([] without), zygotes; JSON values.
    """

    at: float
    facts: Mapping[str, Any]
    runtimes: Mapping[str, ModelRuntime]


@dataclass(frozen=True, slots=True)
class Usage:
    """What was counted since the last report of this model: increments, never totals.

    requests: answered predictions, errors included. items: inputs in them. errors: failed ones by the
    model or server (not bad input). latency_seconds: sum over requests, from arrival in the model
    process to answer. last_at: unix time of the newest.
    """

    model_id: str
    requests: int
    items: int
    errors: int
    latency_seconds: float
    last_at: float
    last_error: str = ""


Report = StateReport | OperationProgress | OperationEnded | Heartbeat | Usage


@dataclass(frozen=True, slots=True)
class Access:
    """Who may use the inference door: SHA-512 hex digest of a token -> its user and permissions.

    permissions: subset of {"predict", "load", "unload"}.
    """

    user: str
    permissions: frozenset[str]
    expires_at: float | None = None


class Reporter(Protocol):
    """Called from the supervisor's event loop; nothing here may block."""

    def start(self, facts: Mapping[str, Any]) -> Future[Sequence[ModelSpec]]:
        """Begins; every model of the registry is moved to what is true (nothing is loaded) and operations
        that a dead daemon left running are ended. Resolves to the models that should be loaded."""
        ...

    def report(self, report: Report) -> None: ...

    def access(self) -> Future[Mapping[str, Access]]:
        """The present token table."""
        ...

    def on_access_changed(self, callback: Any) -> None:
        """callback() is called (from any thread) when tokens or permissions changed."""
        ...

    def submit(self, kind: str, model_id: str, user: str) -> Future[Mapping[str, Any]]:
        """Runs a load or unload asked for at the inference door through the same operations as the API.

        Resolves when the operation ended, to {"state": …, "result": …, "error": {…} | None}; raises
        UnknownModel, StateForbids, PermissionDenied."""
        ...

    def index(self) -> Future[Sequence[Mapping[str, Any]]]:
        """Every registered version: [{"model_id", "name" (lineage), "version", "state", "reason"}]."""
        ...

    def close(self, timeout_seconds: float) -> bool:
        """Writes what is queued; False when something could not be written in time. Blocks."""
        ...
