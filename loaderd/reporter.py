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
from loaderd.rules import Rules
from loaderd.states import LoadPhase, ModelState


@dataclass(frozen=True, slots=True)
class ModelRuntime:
    """What was observed of one model's process. Times are unix seconds.

    private_bytes: USS, what ends with the process. pss_bytes: its fair share of what it shares.
    gpu_bytes: by NVML for this pid; None without a GPU. answered_at: when the process answered for its counters last;
    None: not known, and it counts as when it was seen.
    """

    pid: int | None = None
    started_at: float | None = None
    phase: LoadPhase | None = None
    private_bytes: int | None = None
    pss_bytes: int | None = None
    gpu_bytes: int | None = None
    answered_at: float | None = None


@dataclass(frozen=True, slots=True)
class StateReport:
    """A model moved to `state` at `at`. operation_id: the command behind it, or None (crash, reconcile).

    error: `LoaderdError.to_message()` when state is ERROR. load_seconds: from accepted to answering, with
    phase_seconds its parts, when state is LOADED. freed_bytes: measured, when state is UNLOADED.
    signature: {"inputs": [{name, datatype, shape}], "outputs": [...], "labels": [...] | None,
    "sample_input": {"inputs": [...]} } when state is LOADED.
    peak_bytes: the highest private memory during the load, when state is LOADED; measured_as: see ModelSpec.
    canary: what was recorded at this load because nothing was recorded for these bytes, when state is LOADED.
    ends_wish: nobody wishes the model loaded any more (evicted, kept alive long enough, replaced), so loaderd does
    not load it at its next start.
    cause: why, for programs: "", "evicted", "idle", "unused", "replaced", "crashed", "hung", "restarting", "gone".
    is_no_move: it is in that state and stays so; only the reason is another one.
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
    peak_bytes: int | None = None
    measured_as: str = ""
    canary: Mapping[str, Any] | None = None
    ends_wish: bool = False
    cause: str = ""
    is_no_move: bool = False


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
    process to answer. last_at: unix time of the newest. cache_hits: predictions that the gateway answered without the
    model, which are not among the requests; cache_misses: those that it asked the model for in vain of its cache.
    """

    model_id: str
    requests: int
    items: int
    errors: int
    latency_seconds: float
    last_at: float
    last_error: str = ""
    cache_hits: int = 0
    cache_misses: int = 0


@dataclass(frozen=True, slots=True)
class HealthReport:
    """What a check of a loaded model found; sent at each canary and whenever the status changes.

    status: "healthy", "degraded" or "unhealthy". heartbeat_at: when the process answered last. canary_*: of the
    last canary; None before the first.
    """

    model_id: str
    status: str
    reason: str
    at: float
    heartbeat_at: float | None = None
    canary_at: float | None = None
    canary_ok: bool | None = None
    canary_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class AliasMoved:
    """An alias of a lineage leads to another version from `at` on.

    kind: "activate" or "rollback". left_by_rollback: model_id of the version that a rollback left, to be marked.
    """

    lineage: str
    alias: str
    model_id: str
    previous: str | None
    kind: str
    reason: str
    user: str
    at: float
    operation_id: str | None = None
    left_by_rollback: str | None = None


@dataclass(frozen=True, slots=True)
class AlertReport:
    """Something needs a person's eye (is_open), or does not any more.

    key: stable for one problem of one model ("error_rate:sentiment-v1"). kind: "load_seconds", "memory",
    "error_rate", "unhealthy", "restarts", "gave_up", "thrashing", "no_memory", "over_budget".
    """

    key: str
    kind: str
    model_id: str | None
    message: str
    at: float
    is_open: bool
    value: float | None = None
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One interval of a model's life, or of the host's (model_id None): counted within it, or the highest seen.

    at: its end. histogram: latencies (loaderd.histogram). private_bytes, gpu_bytes, queued, in_flight: highest seen.
    cache_hits, cache_misses: as of Usage.
    For the host: private_bytes is what all models hold, reserved_bytes what is promised to loads under way,
    budget_bytes the limit that holds, available_bytes what the machine has left.
    """

    model_id: str | None
    at: float
    seconds: float
    requests: int = 0
    items: int = 0
    errors: int = 0
    latency_seconds: float = 0.0
    compute_seconds: float = 0.0
    histogram: Sequence[int] = ()
    queued: int = 0
    in_flight: int = 0
    private_bytes: int | None = None
    gpu_bytes: int | None = None
    reserved_bytes: int | None = None
    budget_bytes: int | None = None
    available_bytes: int | None = None
    cache_hits: int = 0
    cache_misses: int = 0


@dataclass(frozen=True, slots=True)
class Trace:
    """One prediction, picked at `sampling_rate`: where its time went, in seconds.

    status: HTTP status of the answer. route: "live", "candidate" or "direct" (asked for by its own id).
    queue_seconds, compute_seconds, batch_items: None when the model did not get to it.
    """

    model_id: str
    at: float
    status: int
    total_seconds: float
    queue_seconds: float | None
    compute_seconds: float | None
    items: int
    batch_items: int | None
    user: str
    route: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was seen of a lineage's live and candidate since the last report: increments.

    compared, disagreed: items of shadow copies whose answers were compared, and that differed. dropped: copies
    that were not sent because too many were under way. split_*: requests that the split sent to each.
    """

    lineage: str
    live: str
    candidate: str
    at: float
    compared: int = 0
    disagreed: int = 0
    dropped: int = 0
    live_requests: int = 0
    live_errors: int = 0
    live_latency_seconds: float = 0.0
    live_histogram: Sequence[int] = ()
    candidate_requests: int = 0
    candidate_errors: int = 0
    candidate_latency_seconds: float = 0.0
    candidate_histogram: Sequence[int] = ()


Report = (
    StateReport
    | OperationProgress
    | OperationEnded
    | Heartbeat
    | Usage
    | HealthReport
    | AliasMoved
    | AlertReport
    | Sample
    | Trace
    | Comparison
)


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

    def rules(self) -> Future[Rules]:
        """The present rules, read after everything reported so far was written: a move of an alias that this
        daemon reported is in them."""
        ...

    def on_rules_changed(self, callback: Any) -> None:
        """callback() is called (from any thread) when policy, limits, aliases or traffic changed."""
        ...

    def submit(self, kind: str, model_id: str, user: str) -> Future[Mapping[str, Any]]:
        """Runs a "load" or "unload" asked for at the inference door through the same operations as the API.

        "demand" is the load of a model whose policy is autoload, on behalf of a prediction of `user`: the system
        asks, so `user` needs no permission to load.

        Resolves when the operation ended, to {"state": …, "result": …, "error": {…} | None}; raises
        UnknownModel, StateForbids, PermissionDenied."""
        ...

    def index(self) -> Future[Sequence[Mapping[str, Any]]]:
        """Every registered version: [{"model_id", "name" (lineage), "version", "state", "reason", "wished"}]. wished:
        whether it should be loaded. Raises what the registry raises while it is away."""
        ...

    def close(self, timeout_seconds: float) -> bool:
        """Writes what is queued; False when something could not be written in time. Blocks."""
        ...
