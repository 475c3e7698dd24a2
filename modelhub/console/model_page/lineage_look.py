"""A lineage as it stands: who is live, what its names lead to, where its requests go, who was live when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from loaderd.rules import CANDIDATE, LIVE
from loaderd.states import ModelState
from loaderd.version_order import version_key
from modelhub.console.model_page.keyed import SharedByKey
from modelhub.lifecycle.models import LineageChange
from modelhub.lifecycle.observed import LoaderView, effective_status, known, loader_view
from modelhub.lifecycle.versions import previous_live
from modelhub.registry.models import Alias, Model, ModelVersion, large_columns
from modelhub.telemetry.queries import comparison_of

MOST_VERSIONS = 50
MOST_CHANGES = 30

_COLUMNS = (
    *("pk", "model_id", "version", "status", "status_reason", "health_status", "health_reason", "private_bytes"),
    *("missing_since", "refusal", "rolled_back_at", "rolled_back_reason", "usage_count", "last_used_at", "lineage_id"),
    *("size_bytes", "framework", "created_at", "phase"),
)


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A version with what is true of it. was_live: now or once."""

    version: ModelVersion
    status: str
    health: str | None
    memory_bytes: int | None
    aliases: Sequence[str]
    was_live: bool

    @property
    def is_live(self) -> bool:
        return LIVE in self.aliases


@dataclass(frozen=True, slots=True)
class Moved:
    """One line of the history. until: when the next one became live; None of one that is, or that is no move of live.

    pk: of the model it leads to, while that is registered.
    """

    change: LineageChange
    leads_to: str
    pk: int | None
    is_live: bool
    is_now: bool
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Side:
    """Live or candidate in a comparison, with the share of its bars against the slower one. name: its alias."""

    name: str
    model_id: str
    requests: int
    errors: int
    error_rate: float
    bars: Sequence[tuple[str, float | None, float]]


@dataclass(frozen=True, slots=True)
class LineageLook:
    """What the page shows. versions: those with names first, then the highest; more_versions: left out."""

    lineage: Model
    loader: LoaderView
    versions: Sequence[VersionRow]
    more_versions: int
    aliases: Sequence[Alias]
    previous: ModelVersion | None
    moves: Sequence[Moved]
    comparison: Mapping[str, Any] | None
    sides: Sequence[Side]

    @property
    def live(self) -> VersionRow | None:
        return next((row for row in self.versions if row.is_live), None)

    @property
    def candidate(self) -> VersionRow | None:
        return next((row for row in self.versions if CANDIDATE in row.aliases), None)

    @property
    def gets_traffic(self) -> bool:
        """Whether people want requests or copies to go to a candidate."""
        return bool(self.lineage.candidate_percent or self.lineage.shadow)

    @property
    def traffic(self) -> str:
        """Where the requests for the bare name go, in a sentence that is true now."""
        share = f"{self.lineage.candidate_percent:g} % of the requests" if self.lineage.candidate_percent else ""
        copies = "copies of what live answers" if self.lineage.shadow else ""
        what = " and ".join(filter(None, (share, copies)))
        what = what[:1].upper() + what[1:]
        if not what:
            return "All requests are answered by live; no candidate is tried."
        if self.candidate is None:
            return f"{what} should go to a candidate, and there is none, so live answers everything."
        name = self.candidate.version.model_id
        if self.candidate.status != ModelState.LOADED:
            return (
                f"{what} should go to {name}, but it is {self.candidate.status}: nothing goes there, and live answers "
                "everything."
            )
        return f"{what} go to {name}; live answers {'the rest' if share else 'everything'}."

    @property
    def is_traffic_idle(self) -> bool:
        return self.gets_traffic and (self.candidate is None or self.candidate.status != ModelState.LOADED)


def make(pk: int) -> LineageLook:
    """Nine queries. Raises Model.DoesNotExist."""
    lineage = Model.objects.get(pk=pk)
    loader = loader_view()
    aliases = list(
        Alias.objects.filter(lineage=lineage)
        .select_related("version")
        .only(*(field.name for field in Alias._meta.concrete_fields), *(f"version__{name}" for name in _COLUMNS[1:]))
    )
    names: dict[int, list[str]] = {}
    for alias in aliases:
        names.setdefault(alias.version_id, []).append(alias.name)
    newest = ModelVersion.objects.filter(lineage=lineage).only(*_COLUMNS).order_by("-created_at", "-pk")
    found = {version.pk: version for version in newest[: MOST_VERSIONS + 1]}
    found |= {alias.version_id: alias.version for alias in aliases}
    total = ModelVersion.objects.filter(lineage=lineage).count()
    moves = _moves(lineage)
    once_live = set(
        LineageChange.objects.filter(lineage=lineage, alias=LIVE, version__in=found).values_list("version", flat=True)
    )
    shown = sorted(found.values(), key=lambda version: _place(version, names), reverse=True)[:MOST_VERSIONS]
    comparison = comparison_of(lineage)
    return LineageLook(
        lineage=lineage,
        loader=loader,
        versions=[_row(version, loader, names.get(version.pk, []), once_live) for version in shown],
        more_versions=total - len(shown),
        aliases=sorted(aliases, key=lambda alias: (alias.name != LIVE, alias.name != CANDIDATE, alias.name)),
        previous=previous_live(lineage),
        moves=moves,
        comparison=comparison,
        sides=_sides(comparison) if comparison else [],
    )


lineage_looks: SharedByKey[LineageLook] = SharedByKey(make)


def _place(version: ModelVersion, names: Mapping[int, Sequence[str]]) -> tuple[Any, ...]:
    own = names.get(version.pk, ())
    return LIVE in own, CANDIDATE in own, bool(own), version_key(version.version), version.pk


def _row(version: ModelVersion, loader: LoaderView, names: Sequence[str], once_live: set[int]) -> VersionRow:
    status = effective_status(version, loader)
    return VersionRow(
        version=version,
        status=status,
        health=version.get_health_status_display() if status == ModelState.LOADED else None,
        memory_bytes=known(version.private_bytes, status),
        aliases=sorted(names, key=lambda name: (name != LIVE, name)),
        was_live=version.pk in once_live,
    )


def _moves(lineage: Model) -> list[Moved]:
    """The newest first. Who is live was decided by the newest move of live."""
    changes = LineageChange.objects.filter(lineage=lineage).select_related("version", "previous")
    found = []
    until: datetime | None = None
    is_newest_of_live = True
    for change in changes.defer(*large_columns("version"), *large_columns("previous"))[:MOST_CHANGES]:
        is_live = change.alias == LIVE
        found.append(
            Moved(
                change=change,
                leads_to=change.leads_to,
                pk=change.version_id,
                is_live=is_live,
                is_now=is_live and is_newest_of_live and change.kind != LineageChange.Kind.REMOVE,
                until=until if is_live else None,
            )
        )
        if is_live:
            until, is_newest_of_live = change.at, False
    return found


def _sides(comparison: Mapping[str, Any]) -> list[Side]:
    """Each figure as a bar against the larger of the two."""
    pairs = {"live": comparison["live"], "candidate": comparison["candidate"]}
    most = {
        name: max((side["latency_ms"][name] or 0.0 for side in pairs.values()), default=0.0)
        for name in ("mean", "p50", "p95", "p99")
    }
    return [
        Side(
            name=alias,
            model_id=side["model_id"],
            requests=side["requests"],
            errors=side["errors"],
            error_rate=side["error_rate"],
            bars=[
                (name, value, 100 * (value or 0.0) / most[name] if most[name] else 0.0)
                for name, value in side["latency_ms"].items()
            ],
        )
        for alias, side in pairs.items()
    ]
