"""Writes where the names of lineages lead, as loaderd reports it. The only writer of `live`; runs in a transaction."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime

from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from loaderd.reporter import AliasMoved, StateReport
from loaderd.rules import CANDIDATE, LIVE
from loaderd.states import ModelState
from modelhub.lifecycle.models import LineageChange, Operation, StateChange
from modelhub.lifecycle.storable import at_time, storable
from modelhub.policy.effective import notify_rules_changed
from modelhub.registry.models import Alias, Model, ModelVersion

logger = logging.getLogger(__name__)


def make_first_live(loads: Sequence[StateChange]) -> None:
    """A lineage without a live version gets the first one that was loaded in it, and loaderd is told.

    loads: moves to `loaded`, in order. One query where all lineages have their live version.
    """
    lineages = {load.version.lineage_id for load in loads}
    if not lineages:
        return
    lineages -= set(Alias.objects.filter(lineage__in=lineages, name=LIVE).values_list("lineage", flat=True))
    first: dict[int, StateChange] = {}
    for load in loads:
        if load.version.lineage_id in lineages:
            first.setdefault(load.version.lineage_id, load)
    if not first:
        return
    Alias.objects.bulk_create(
        Alias(lineage_id=lineage_id, name=LIVE, version=load.version, set_at=load.at, set_by=load.actor)
        for lineage_id, load in first.items()
    )
    LineageChange.objects.bulk_create(
        LineageChange(
            lineage_id=lineage_id,
            alias=LIVE,
            kind=LineageChange.Kind.FIRST,
            version=load.version,
            details={"version_id": load.version.model_id, "previous_id": None},
            reason="the first version that was loaded",
            actor=load.actor,
            operation_id=load.operation_id,
            at=load.at,
        )
        for lineage_id, load in first.items()
    )
    notify_rules_changed()


def record_moves(reports: Sequence[AliasMoved], unwished: set[int] | None = None) -> None:
    """Moves the aliases, in order, and leaves a LineageChange for each move.

    The version that a rollback left is marked, and the mark goes when a version becomes live again.
    unwished: gets the version that was left, unless another alias leads to it, for `recording.record_ended`.
    """
    if not reports:
        return
    unwished = set() if unwished is None else unwished
    names = {name for report in reports for name in (report.model_id, report.previous, report.left_by_rollback) if name}
    # Locked in one order, as everywhere.
    rows = ModelVersion.objects.select_for_update(no_key=True).order_by("pk").only("model_id", "lineage_id")
    versions = {version.model_id: version for version in rows.filter(model_id__in=names)}
    lineages = {lineage.name: lineage for lineage in Model.objects.filter(name__in={r.lineage for r in reports})}
    known = _known_operations(reports)
    changes = []
    for report in reports:
        lineage, version = lineages.get(report.lineage), versions.get(report.model_id)
        if lineage is None or version is None:
            logger.warning(
                "%s of %s leads to %s, which is not registered any more", report.alias, report.lineage, report.model_id
            )
            continue
        at, reason = at_time(report.at), storable(report.reason)[:500]
        Alias.objects.bulk_create(
            [Alias(lineage=lineage, name=report.alias, version=version, set_at=at, set_by=report.user)],
            update_conflicts=True,
            unique_fields=["lineage", "name"],
            update_fields=["version", "set_at", "set_by"],
        )
        previous = versions.get(report.previous or "")
        operation_id = report.operation_id if report.operation_id in known else None
        changes.append(
            LineageChange(
                lineage=lineage,
                alias=report.alias,
                kind=report.kind,
                version=version,
                previous=previous,
                details={"version_id": report.model_id, "previous_id": report.previous},
                reason=reason,
                actor=report.user,
                operation_id=operation_id,
                at=at,
            )
        )
        if report.alias != LIVE:
            continue
        ModelVersion.objects.filter(pk=version.pk).update(rolled_back_at=None, rolled_back_reason="")
        if report.left_by_rollback in versions:
            left = ModelVersion.objects.filter(pk=versions[report.left_by_rollback].pk)
            left.update(rolled_back_at=at, rolled_back_reason=reason)
        if previous is not None and not Alias.objects.filter(version=previous).exists():
            unwished.add(previous.pk)
        unwished.discard(version.pk)
    LineageChange.objects.bulk_create(changes)
    notify_rules_changed()


def end_splits(reports: Sequence[AliasMoved | StateReport]) -> None:
    """A candidate that became live has no other version beside it: its share of the traffic ends.

    Otherwise the next candidate would get that share, or the copies, without anybody having said so. A first load
    makes live, too. To be called when everything else is written: people lock a lineage after its versions.
    """
    moved = {report.lineage for report in reports if isinstance(report, AliasMoved) and report.alias == LIVE}
    loads = (report for report in reports if isinstance(report, StateReport) and report.state == ModelState.LOADED)
    loaded = {report.model_id for report in loads}
    if not moved and not loaded:
        return
    candidate = Alias.objects.filter(name=CANDIDATE, lineage=OuterRef("lineage"), version=OuterRef("version"))
    live = Alias.objects.filter(Q(lineage__name__in=moved) | Q(version__model_id__in=loaded), name=LIVE)
    split = live.filter(Q(lineage__candidate_percent__gt=0.0) | Q(lineage__shadow=True), Exists(candidate))
    for alias in split.order_by("lineage"):
        _end_split(alias.lineage_id, alias.set_at, "its candidate became live", alias.set_by)


def record_strayed(aliases: Sequence[Alias], actor: str) -> None:
    """Leaves a LineageChange for each alias that discovery removes; without `candidate` the traffic is `live`'s.

    aliases: with lineage and version read; their versions' rows are locked.
    """
    now = timezone.now()
    # Locked in one order, after the versions.
    lineages = Model.objects.select_for_update(no_key=True).order_by("pk")
    list(lineages.filter(pk__in={alias.lineage_id for alias in aliases}).values_list("pk"))
    LineageChange.objects.bulk_create(
        LineageChange(
            lineage=alias.lineage,
            alias=alias.name,
            kind=LineageChange.Kind.REMOVE,
            previous=alias.version,
            details={"version_id": None, "previous_id": alias.version.model_id},
            reason=f"{alias.version.model_id} is of the lineage {alias.version.lineage} now"[:500],
            actor=actor,
            at=now,
        )
        for alias in aliases
    )
    without_candidate = {alias.lineage_id for alias in aliases if alias.name == CANDIDATE}
    split = Model.objects.filter(Q(candidate_percent__gt=0.0) | Q(shadow=True), pk__in=without_candidate)
    for lineage_id in split.order_by("pk").values_list("pk", flat=True):
        _end_split(lineage_id, now, "its candidate was removed", actor)


def _end_split(lineage_id: int, at: datetime, reason: str, actor: str) -> None:
    values = {"candidate_percent": 0.0, "shadow": False}
    Model.objects.filter(pk=lineage_id).update(**values, traffic_changed_at=at)
    kind = LineageChange.Kind.TRAFFIC
    LineageChange.objects.create(lineage_id=lineage_id, kind=kind, details=values, reason=reason, actor=actor, at=at)
    notify_rules_changed()


def _known_operations(reports: Iterable[AliasMoved]) -> set[str]:
    wanted = {report.operation_id for report in reports if report.operation_id}
    return {str(pk) for pk in Operation.objects.filter(pk__in=wanted).values_list("pk", flat=True)} if wanted else set()
