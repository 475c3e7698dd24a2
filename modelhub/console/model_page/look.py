"""What is true of one model now, read once a second for all who look at its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from loaderd.rules import LIVE, ModelPolicy, Rules
from loaderd.states import ModelState
from modelhub.console.model_page.failure import Failure, failure_of
from modelhub.console.model_page.keyed import SharedByKey
from modelhub.lifecycle.models import ACTIVE, LineageChange, Operation, OperationKind
from modelhub.lifecycle.observed import LoaderView, effective_status, known, loader_view
from modelhub.registry.approval import needs_approval
from modelhub.registry.choices import DesiredState
from modelhub.registry.models import Alias, ModelVersion
from modelhub.telemetry.models import Alert
from modelhub.telemetry.queries import summary

RATE_SECONDS = 60.0
LATENCY_SECONDS = 300.0
_LARGE = ("manifest", "config", "signature", "performance_metrics")
_STARTING = (OperationKind.LOAD, OperationKind.ACTIVATE, OperationKind.ROLLBACK)
_IN_MEMORY = (ModelState.LOADING, ModelState.LOADED, ModelState.UNLOADING)


@dataclass(frozen=True, slots=True)
class Remark:
    """What somebody should know before they act. tab: of the page, where more is told or done."""

    text: str
    tab: str = ""
    title: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """A model's state and what goes with it. ends_at: when its keep-alive will unload it.

    cache_seconds: for how long its answers are kept; 0.0: they are not.
    live: the version that answers for its lineage; None before the first load. minute, recent: summaries of the last
    minute and of the last five.
    """

    version: ModelVersion
    loader: LoaderView
    status: str
    health: str | None
    health_reason: str | None
    memory_bytes: int | None
    pss_bytes: int | None
    gpu_bytes: int | None
    pid: int | None
    aliases: Sequence[str]
    live: ModelVersion | None
    was_live: bool
    minute: Mapping[str, Any]
    recent: Mapping[str, Any]
    running: Sequence[Operation]
    alerts: Sequence[Alert]
    failure: Failure | None
    remarks: Sequence[Remark]
    ends_at: datetime | None
    cache_seconds: float

    @property
    def is_live(self) -> bool:
        return LIVE in self.aliases

    @property
    def is_busy(self) -> bool:
        return bool(self.running)


def make(pk: int) -> Look:
    """Ten queries. Raises ModelVersion.DoesNotExist."""
    version = ModelVersion.objects.select_related("lineage", "approved_by").defer(*_LARGE).get(pk=pk)
    loader = loader_view()
    status = effective_status(version, loader)
    aliases = list(Alias.objects.filter(version=version).order_by("name").values_list("name", flat=True))
    is_loaded = status == ModelState.LOADED
    operations = Operation.objects.filter(version=version).order_by("-requested_at")
    return Look(
        version=version,
        loader=loader,
        status=status,
        health=version.get_health_status_display() if is_loaded else None,
        health_reason=version.health_reason if is_loaded else None,
        memory_bytes=known(version.private_bytes, status),
        pss_bytes=known(version.pss_bytes, status),
        gpu_bytes=known(version.gpu_bytes, status),
        pid=known(version.pid, status),
        aliases=sorted(aliases, key=lambda name: (name != LIVE, name)),
        live=_live(version),
        was_live=LineageChange.objects.filter(lineage=version.lineage_id, alias=LIVE, version=version).exists(),
        minute=summary(version, RATE_SECONDS),
        recent=summary(version, LATENCY_SECONDS),
        running=list(operations.filter(status__in=ACTIVE)),
        alerts=list(Alert.objects.filter(version=version, resolved_at=None)),
        failure=failure_of(version, operations.filter(kind__in=_STARTING).first()),
        remarks=remarks(version),
        ends_at=_ends_at(version) if is_loaded else None,
        cache_seconds=_cache_seconds(version, loader),
    )


looks: SharedByKey[Look] = SharedByKey(make)


def remarks(version: ModelVersion) -> list[Remark]:
    """What is odd about a model's files or its past."""
    said = []
    if version.missing_since is not None:
        said.append(
            Remark(
                f"Its directory is gone since {version.missing_since:%Y-%m-%d %H:%M:%S}; put it back and run "
                "discovery, or delete the model here."
            )
        )
    if version.refusal:
        said.append(Remark(f"Discovery refuses its directory. {version.refusal}", "files", "See its files"))
    if version.status in _IN_MEMORY and version.is_stale_in_memory:
        said.append(Remark("Its files changed since it was loaded; unload and load it to use the new ones.", "files"))
    if version.rolled_back_at is not None:
        why = f": {version.rolled_back_reason}" if version.rolled_back_reason else ""
        said.append(
            Remark(
                f"A rollback left it at {version.rolled_back_at:%Y-%m-%d %H:%M:%S}{why}.", "versions", "See versions"
            )
        )
    if needs_approval(version):
        said.append(
            Remark(
                f"Loading the format {version.artifact_format} can run code, and nobody has approved these files "
                f"(digest {version.digest[:12]}). Approve them if you trust where they come from.",
                "files",
                "See and approve its files",
            )
        )
    return said


def is_held(version: ModelVersion) -> bool:
    """Whether the model is in memory or somebody wants it there."""
    return version.status in _IN_MEMORY or version.desired_state == DesiredState.LOADED


def _live(version: ModelVersion) -> ModelVersion | None:
    alias = Alias.objects.filter(lineage=version.lineage_id, name=LIVE).select_related("version")
    found = alias.only("version__model_id", "version__version", "version__status").first()
    return None if found is None else found.version


def _cache_seconds(version: ModelVersion, loader: LoaderView) -> float:
    """By its policy, and where that says nothing by what loaderd told last."""
    limits = loader.facts.get("limits") or {}
    said = {name: limits[name] for name in ("cache_enabled", "cache_ttl_seconds") if name in limits}
    policy = ModelPolicy(cache_enabled=version.cache_enabled, cache_ttl_seconds=version.cache_ttl_seconds)
    return Rules(**said, models={version.model_id: policy}).cache_seconds_of(version.model_id)


def _ends_at(version: ModelVersion) -> datetime | None:
    if not version.keep_alive_seconds or version.pinned:
        return None
    used_at = max(filter(None, (version.last_used_at, version.status_changed_at)), default=None)
    return None if used_at is None else used_at + timedelta(seconds=version.keep_alive_seconds)
