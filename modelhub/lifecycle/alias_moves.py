"""Writes where the names of lineages lead, as loaderd reports it. The only writer of `live`; runs in a transaction."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from django.db.models import OuterRef, Q, Subquery

from loaderd.reporter import AliasMoved
from loaderd.rules import CANDIDATE, LIVE
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


def end_splits(reports: Sequence[AliasMoved]) -> None:
    """A candidate that became live has no other version beside it: its share of the traffic ends.

    Otherwise the next candidate would get that share, or the copies, without anybody having said so. To be called
    when everything else is written: people lock a lineage after its versions.
    """
    newest = {report.lineage: report for report in reports if report.alias == LIVE}
    if not newest:
        return
    split = Model.objects.filter(Q(candidate_percent__gt=0.0) | Q(shadow=True), name__in=newest)
    live = Alias.objects.filter(lineage=OuterRef("pk"), name=LIVE).values("version")
    for lineage in split.filter(aliases__name=CANDIDATE, aliases__version=Subquery(live)):
        report = newest[lineage.name]
        at, values = at_time(report.at), {"candidate_percent": 0.0, "shadow": False}
        Model.objects.filter(pk=lineage.pk).update(**values, traffic_changed_at=at)
        LineageChange.objects.create(
            lineage=lineage,
            kind=LineageChange.Kind.TRAFFIC,
            details=values,
            reason="its candidate became live",
            actor=report.user,
            at=at,
        )


def _known_operations(reports: Iterable[AliasMoved]) -> set[str]:
    wanted = {report.operation_id for report in reports if report.operation_id}
    return {str(pk) for pk in Operation.objects.filter(pk__in=wanted).values_list("pk", flat=True)} if wanted else set()
