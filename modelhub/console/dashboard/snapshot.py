"""What the dashboard shows, read at once in a fixed number of queries: made by one thread for all viewers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from loaderd import __version__
from loaderd.rules import LIVE
from modelhub.console.live import Shared
from modelhub.console.words import tone_of
from modelhub.lifecycle.models import ACTIVE, LineageChange, Operation, StateChange
from modelhub.lifecycle.observed import UNREACHABLE, LoaderView, effective_status, known, loader_view
from modelhub.registry.choices import HealthStatus, Status
from modelhub.registry.models import Alias, ModelVersion, large_columns
from modelhub.telemetry.models import Alert
from modelhub.telemetry.queries import open_alerts, summaries

RATE_SECONDS = 60.0
LATENCY_SECONDS = 300.0
MOST_MODELS = 100
MOST_EVENTS = 12
MOST_ALERTS = 8
MOST_OPERATIONS = 12
SERIES = 8  # colours of the gauge; the models beyond share one

_COLUMNS = (
    *("pk", "model_id", "version", "framework", "status", "status_reason", "status_cause", "status_changed_at"),
    *("health_status", "health_reason", "phase", "private_bytes", "gpu_bytes", "pinned", "keep_alive_seconds"),
    *("last_used_at", "last_error", "desired_state", "observed_at"),
)


@dataclass(frozen=True, slots=True)
class Part:
    """One stretch of a gauge. percent: of the gauge's whole."""

    name: str
    bytes: int
    percent: float
    colour: str


@dataclass(frozen=True, slots=True)
class Gauge:
    """What models hold of a memory, stacked, against what they may hold. free_bytes: below zero past the budget.

    scale: the whole of the bar, so that models past their budget still fit into it.
    """

    title: str
    parts: Sequence[Part]
    used_bytes: int
    reserved_bytes: int
    budget_bytes: int
    total_bytes: int
    available_bytes: int | None

    @property
    def free_bytes(self) -> int:
        return self.budget_bytes - self.used_bytes - self.reserved_bytes

    @property
    def used_percent(self) -> float:
        return 100.0 * (self.used_bytes + self.reserved_bytes) / self.budget_bytes if self.budget_bytes else 0.0


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model that is in memory, on its way, or failed. ends_at: when its keep-alive will unload it."""

    version: ModelVersion
    status: str
    tone: str
    health: str | None
    health_tone: str
    memory_bytes: int | None
    gpu_bytes: int | None
    requests_per_second: float
    p50_ms: float | None
    p95_ms: float | None
    error_rate: float | None
    used_at: datetime | None
    ends_at: datetime | None
    is_live: bool
    colour: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, in a line."""

    at: datetime
    tone: str
    what: str
    model_id: str
    pk: int | None
    detail: str
    actor: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    at: datetime
    loader: LoaderView
    queue_waiting: int
    memory: Gauge | None
    gpus: Sequence[Gauge]
    rows: Sequence[ModelRow]
    more_rows: int
    counts: Mapping[str, int]
    operations: Sequence[Operation]
    alerts: Sequence[Alert]
    more_alerts: int
    events: Sequence[Event]
    registered: int
    requests_per_second: float
    release: str = __version__


def make() -> Snapshot:
    """Nine queries, whatever there is."""
    loader = loader_view()
    present = ModelVersion.objects.exclude(status=Status.UNLOADED).only(*_COLUMNS).order_by("model_id")
    versions = sorted(present, key=_importance)
    shown = _shown(versions)
    live_ids = set(Alias.objects.filter(name=LIVE, version__in=shown).values_list("version_id", flat=True))
    ids = [version.pk for version in shown]
    rates = summaries([version.pk for version in versions], RATE_SECONDS)
    latencies = summaries(ids, LATENCY_SECONDS)
    colours = _colours(shown)
    rows = [
        _row(
            version,
            loader,
            rate=rates[version.pk],
            latency=latencies[version.pk],
            is_live=version.pk in live_ids,
            colour=colours[version.pk],
        )
        for version in shown
    ]
    alerts = open_alerts()
    operations = (
        Operation.objects.filter(status__in=ACTIVE)
        .select_related("version")
        .defer(*large_columns("version"))
        .order_by("requested_at")
    )
    return Snapshot(
        at=timezone.now(),
        loader=loader,
        queue_waiting=_waiting(),
        memory=_memory(loader, versions, colours),
        gpus=_gpus(loader, versions, colours),
        rows=rows,
        more_rows=len(versions) - len(shown),
        counts=_counts(versions, loader),
        operations=list(operations[:MOST_OPERATIONS]),
        alerts=alerts[:MOST_ALERTS],
        more_alerts=max(0, len(alerts) - MOST_ALERTS),
        events=_events(),
        registered=ModelVersion.objects.count(),
        requests_per_second=sum(rate["requests_per_second"] for rate in rates.values()),
    )


dashboard = Shared(make)


def _shown(versions: Sequence[ModelVersion]) -> list[ModelVersion]:
    """So many as a page bears. Failed ones leave half of the room to the others."""
    failed = [version for version in versions if version.status == str(Status.ERROR)]
    others = [version for version in versions if version.status != str(Status.ERROR)]
    kept = failed[: max(MOST_MODELS // 2, MOST_MODELS - len(others))]
    return [*kept, *others[: MOST_MODELS - len(kept)]]


def _importance(version: ModelVersion) -> tuple[int, str]:
    """What failed stands first, then what moves, then what serves."""
    order = {Status.ERROR: 0, Status.LOADING: 1, Status.UNLOADING: 1}
    return order.get(Status(version.status), 2), version.model_id


def _colours(versions: Sequence[ModelVersion]) -> dict[int, str]:
    """The largest get a colour of their own."""
    by_size = sorted(versions, key=lambda version: -((version.private_bytes or 0) + (version.gpu_bytes or 0)))
    return {version.pk: str(at + 1) if at < SERIES else "rest" for at, version in enumerate(by_size)}


def _row(
    version: ModelVersion,
    loader: LoaderView,
    *,
    rate: Mapping[str, Any],
    latency: Mapping[str, Any],
    is_live: bool,
    colour: str,
) -> ModelRow:
    status = effective_status(version, loader)
    is_loaded = status == str(Status.LOADED)
    health = known(version.get_health_status_display(), status) if is_loaded else None
    used_at = max(filter(None, (version.last_used_at, version.status_changed_at)), default=None)
    ends_at = None
    if is_loaded and version.keep_alive_seconds and not version.pinned and used_at is not None:
        ends_at = used_at + timedelta(seconds=version.keep_alive_seconds)
    return ModelRow(
        version=version,
        status=status,
        tone=tone_of(status),
        health=health,
        health_tone=tone_of(version.health_status) if health else "off",
        memory_bytes=known(version.private_bytes, status),
        gpu_bytes=known(version.gpu_bytes, status),
        requests_per_second=rate["requests_per_second"],
        p50_ms=latency["latency_ms"]["p50"],
        p95_ms=latency["latency_ms"]["p95"],
        error_rate=latency["error_rate"] if latency["requests"] else None,
        used_at=version.last_used_at,
        ends_at=ends_at,
        is_live=is_live,
        colour=colour,
    )


def _counts(versions: Sequence[ModelVersion], loader: LoaderView) -> dict[str, int]:
    """How many models are in each state and health that somebody cares for, shown or not."""
    statuses = [effective_status(version, loader) for version in versions]
    counts = {state: statuses.count(state) for state in ("loaded", "loading", "unloading", "error", UNREACHABLE)}
    troubled = {str(HealthStatus.DEGRADED), str(HealthStatus.UNHEALTHY)}
    loaded = (version for version, status in zip(versions, statuses, strict=True) if status == str(Status.LOADED))
    counts["troubled"] = sum(version.health_status in troubled for version in loaded)
    return counts


def _memory(loader: LoaderView, versions: Sequence[ModelVersion], colours: Mapping[int, str]) -> Gauge | None:
    told = loader.facts.get("budget") or {}
    if not loader.reachable or told.get("budget_bytes") is None:
        return None
    machine = loader.facts.get("memory") or {}
    held = [(version, version.private_bytes or 0) for version in versions]
    return _gauge(
        "Memory of models",
        held,
        colours,
        budget=told["budget_bytes"],
        reserved=told.get("reserved_bytes") or 0,
        total=machine.get("total_bytes") or told["budget_bytes"],
        available=machine.get("available_bytes"),
    )


def _gpus(loader: LoaderView, versions: Sequence[ModelVersion], colours: Mapping[int, str]) -> list[Gauge]:
    """A gauge for each GPU. Models compute on the first; of the others the driver's figures are known only."""
    told = loader.facts.get("budget") or {}
    if not loader.reachable:
        return []
    gauges = []
    for number, gpu in enumerate(loader.facts.get("gpus") or []):
        total, free = gpu.get("memory_total_bytes") or 0, gpu.get("memory_free_bytes")
        is_used = number == 0 and told.get("gpu_budget_bytes") is not None
        held = [(version, version.gpu_bytes or 0) for version in versions] if is_used else []
        gauges.append(
            _gauge(
                f"GPU {gpu.get('index', number)}: {gpu.get('name', '')}",
                held,
                colours,
                budget=told["gpu_budget_bytes"] if is_used else total,
                reserved=(told.get("gpu_reserved_bytes") or 0) if is_used else 0,
                total=total,
                available=free,
            )
        )
    return gauges


def _gauge(
    title: str,
    held: Sequence[tuple[ModelVersion, int]],
    colours: Mapping[int, str],
    *,
    budget: int,
    reserved: int,
    total: int,
    available: int | None,
) -> Gauge:
    used = sum(size for _, size in held)
    whole = max(budget, used + reserved, 1)
    largest_first = sorted(((size, version) for version, size in held if size), key=lambda pair: -pair[0])
    own = [(size, version) for size, version in largest_first if colours.get(version.pk, "rest") != "rest"]
    parts = [Part(version.model_id, size, 100 * size / whole, colours[version.pk]) for size, version in own]
    rest = used - sum(part.bytes for part in parts)
    if rest:
        count = len(largest_first) - len(own)
        parts.append(Part(f"{count} more", rest, 100 * rest / whole, "rest"))
    if reserved:
        parts.append(Part("reserved for loads under way", reserved, 100 * reserved / whole, "reserved"))
    return Gauge(title, parts, used, reserved, budget, total, available)


def _events() -> list[Event]:
    """The newest moves of states, where they came to rest, and of names."""
    rested = StateChange.objects.exclude(to_state__in=[Status.LOADING, Status.UNLOADING])
    changes = rested.select_related("version").only(
        *("at", "from_state", "to_state", "reason", "actor", "version__model_id")
    )[:MOST_EVENTS]
    moves = LineageChange.objects.select_related("lineage").only(
        *("at", "alias", "kind", "version_id", "details", "reason", "actor", "lineage__name")
    )[:MOST_EVENTS]
    found = [
        Event(
            at=change.at,
            tone=tone_of(change.to_state),
            what=change.to_state,
            model_id=change.version.model_id,
            pk=change.version_id,
            detail=change.reason,
            actor=change.actor,
        )
        for change in changes
    ]
    found += [
        Event(
            at=move.at,
            tone="good" if move.alias == LIVE and move.kind != LineageChange.Kind.REMOVE else "off",
            what=f"{move.lineage.name}: {f'{move.alias} ' if move.alias else ''}{move.get_kind_display().lower()}",
            model_id=str(move.details.get("version_id") or ""),
            pk=move.version_id,
            detail=move.reason,
            actor=move.actor,
        )
        for move in moves
    ]
    return sorted(found, key=lambda event: event.at, reverse=True)[:MOST_EVENTS]


def _waiting() -> int:
    """Tasks that no worker has taken yet."""
    from django_q.models import OrmQ

    return int(OrmQ.objects.filter(lock__lte=timezone.now()).count())
