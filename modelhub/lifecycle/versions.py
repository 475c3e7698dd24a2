"""A lineage's versions: which one is live, how it becomes so, who was live when; aliases and traffic.

`live` is moved by loaderd alone, when the new version answers and before the old one goes; the registry records
the move. Every other alias, and the traffic, is a record that loaderd follows within a second.
Whoever changes one of them locks the version's row first, then the lineage's, then operations'.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from loaderd.errors import InvalidInput, StateForbids, UnknownModel
from loaderd.rules import CANDIDATE, LIVE
from loaderd.version_order import version_key
from modelhub.actors import actor_of
from modelhub.lifecycle.actions import check_loadable, check_reachable, enqueue, locked, new_operation
from modelhub.lifecycle.models import ACTIVE, LineageChange, Operation, OperationKind
from modelhub.lifecycle.permissions import ACTIVATE, User, check, check_permission
from modelhub.lifecycle.storable import storable
from modelhub.lifecycle.wishes import DESIRED, SWITCHING_KINDS
from modelhub.registry.choices import Status
from modelhub.registry.models import Alias, Model, ModelVersion, large_columns

_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Period:
    """A time in which one version was live.

    version_id: its model_id, kept when the version is deleted. until: None while it is live. kind: how it became
    live: first, activate or rollback. operation_id: None for the first load.
    """

    version_id: str
    since: datetime
    until: datetime | None
    kind: str
    reason: str
    actor: str
    operation_id: str | None = None


# Moves of `live`: operations that loaderd carries out


def request_activate(
    version: ModelVersion, *, user: User | None, source: str, reason: str = "", allow_gap: bool = False
) -> Operation:
    """The operation that makes `version` live: new, the same one that is under way, or ended when it is live.

    The new version is loaded beside the old one, which stays untouched when that fails. allow_gap: where both do
    not fit into memory, the old one may go first, and nobody answers until the new one is loaded.
    Raises PermissionDenied, UnknownModel, ArtifactRefused, UnknownFramework, StateForbids, LoaderUnreachable.
    """
    check_permission(user, _kind(OperationKind.ACTIVATE))
    with transaction.atomic():
        present = locked(version)
        lineage = _locked(present.lineage_id, present.model_id)
        return _request(OperationKind.ACTIVATE, lineage, present, user, source, reason, allow_gap)


def request_rollback(
    lineage: Model,
    *,
    to: ModelVersion | None,
    user: User | None,
    source: str,
    reason: str = "",
    allow_gap: bool = False,
) -> Operation:
    """The operation that makes an earlier version live again, as request_activate does; the one it leaves is marked.

    to: None is the version that was live before (`previous_live`). Raises as request_activate, and StateForbids
    when there is no such version.
    """
    check_permission(user, _kind(OperationKind.ROLLBACK))
    with transaction.atomic():
        target = to or previous_live(lineage)
        if target is None:
            raise StateForbids(
                f"No version of {lineage.name} was live before and may be live again (those that a rollback left are "
                "passed over); name the version to roll back to.",
                lineage=lineage.name,
            )
        present = locked(target)
        lineage = _locked(lineage.pk, lineage.name)
        if to is None and previous_live(lineage) != present:
            raise StateForbids(
                f"{lineage.name} got another live version at this moment; look who is live and repeat.",
                lineage=lineage.name,
            )
        return _request(OperationKind.ROLLBACK, lineage, present, user, source, reason, allow_gap)


def _request(
    kind: Any, lineage: Model, present: ModelVersion, user: User | None, source: str, reason: str, allow_gap: bool
) -> Operation:
    """present, lineage: locked."""
    if present.lineage_id != lineage.pk:
        raise StateForbids(f"{present.model_id} is no version of {lineage.name}.", model_id=present.model_id)
    present.lineage = lineage
    check_loadable(present)
    check_reachable(f"the {kind.label.lower()} of {present.model_id}", model_id=present.model_id)
    under_way = switch_to_join(kind, lineage, present)
    if under_way is not None:
        if bool(under_way.parameters.get("allow_gap")) != allow_gap:
            raise StateForbids(
                f"The {under_way.what} is under way {'without' if allow_gap else 'with'} allow_gap; cancel it or "
                "ask again when it has ended.",
                operation=str(under_way.pk),
                lineage=lineage.name,
            )
        return under_way
    live = live_of(lineage)
    is_live = live is not None and live.pk == present.pk
    if is_live and kind == OperationKind.ROLLBACK:
        raise StateForbids(f"{present.model_id} is live already.", model_id=present.model_id, lineage=lineage.name)
    parameters = {"allow_gap": allow_gap, "desired_before": str(present.desired_state)}
    operation = new_operation(kind, present, user, source, reason, parameters)
    if present.desired_state != DESIRED[kind]:
        ModelVersion.objects.filter(pk=present.pk).update(desired_state=DESIRED[kind])
    is_busy = Operation.objects.filter(version=present, status__in=ACTIVE).exists()
    done = {
        "model_id": present.model_id,
        "status": "live",
        "was_live": True,
        "previous": None,
        "load_seconds": None,
        "freed_bytes": None,
        "gap_seconds": None,
    }
    return enqueue(operation, done if is_live and present.status == Status.LOADED and not is_busy else None)


def switch_to_join(kind: Any, lineage: Model, version: ModelVersion) -> Operation | None:
    """The same activation or rollback when it is under way; None when none of this lineage is. One query.

    Raises StateForbids for another one: one at a time, so that they end as asked for.
    """
    switching = Operation.objects.filter(kind__in=SWITCHING_KINDS, version__lineage=lineage, status__in=ACTIVE)
    under_way = switching.select_related("version").defer(*large_columns("version")).first()
    if under_way is not None and (under_way.kind, under_way.version_id) != (kind, version.pk):
        raise StateForbids(
            f"The {under_way.what} is under way; cancel it or ask again when it has ended.",
            operation=str(under_way.pk),
            lineage=lineage.name,
        )
    return under_way


# Aliases and traffic: records


def set_alias(lineage: Model, name: str, version: ModelVersion, *, user: User | None, reason: str = "") -> Alias:
    """The alias, which leads to `version` now. loaderd follows within a second.

    Raises PermissionDenied; InvalidInput for a name that is none; StateForbids for `live` (activate or roll back),
    for a version of another lineage or one that is gone, and for a candidate that is live.
    """
    check(user, ACTIVATE, "set aliases")
    if name == LIVE:
        raise StateForbids(
            f"`live` is moved by an activation or a rollback, which load the version first: activate "
            f"{version.model_id}.",
            model_id=version.model_id,
        )
    if not _ALIAS.fullmatch(name):
        raise InvalidInput(
            f'"{name[:70]}" is no name for an alias: a letter, then letters, digits and ". _ -", 64 at most.'
        )
    with transaction.atomic():
        present = locked(version)
        lineage = _locked(lineage.pk, lineage.name)
        _check_target(lineage, name, present)
        before = Alias.objects.select_related("version").filter(lineage=lineage, name=name).first()
        if before is not None and before.version_id == present.pk:
            return before
        alias = before or Alias(lineage=lineage, name=name)
        previous = None if before is None else before.version
        alias.version, alias.set_at, alias.set_by = present, timezone.now(), actor_of(user)
        alias.save()
        if name == CANDIDATE and (lineage.candidate_percent or lineage.shadow):
            lineage.traffic_changed_at = alias.set_at  # another pair is compared from now on
            lineage.save(update_fields=["traffic_changed_at"])
        _note(lineage, LineageChange.Kind.SET, user, reason, alias=name, version=present, previous=previous)
    return alias


def _check_target(lineage: Model, name: str, version: ModelVersion) -> None:
    facts = {"model_id": version.model_id, "lineage": lineage.name}
    if version.lineage_id != lineage.pk:
        raise StateForbids(f"{version.model_id} is no version of {lineage.name}.", **facts)
    if version.missing_since is not None:
        raise StateForbids(
            f"{version.model_id} is not in the store any more; put its directory back and run `manage.py discover`.",
            **facts,
        )
    if ModelVersion.objects.filter(lineage=lineage, version=name).exists():
        raise StateForbids(f"{name} is a version of {lineage.name}; an alias needs another name.", **facts)
    if name == CANDIDATE:
        live = live_of(lineage)
        if live is not None and live.pk == version.pk:
            raise StateForbids(f"{version.model_id} is live; a candidate is another version beside it.", **facts)


def remove_alias(lineage: Model, name: str, *, user: User | None, reason: str = "") -> None:
    """The name leads nowhere any more; without `candidate` the traffic is `live`'s alone.

    Raises PermissionDenied, UnknownModel, and StateForbids for `live`.
    """
    check(user, ACTIVATE, "remove aliases")
    if name == LIVE:
        raise StateForbids(
            f"{lineage.name} keeps its live version; unload it if nobody shall be answered.", lineage=lineage.name
        )
    with transaction.atomic():
        lineage = _locked(lineage.pk, lineage.name)
        alias = None
        if _ALIAS.fullmatch(name):  # Postgres refuses to look for a NUL
            alias = Alias.objects.select_related("version").filter(lineage=lineage, name=name).first()
        if alias is None:
            raise UnknownModel(f"{lineage.name} has no alias {name[:70]!r}.", lineage=lineage.name)
        previous = alias.version
        alias.delete()
        _note(lineage, LineageChange.Kind.REMOVE, user, reason, alias=name, previous=previous)
        if name == CANDIDATE:
            _write_traffic(lineage, 0.0, False, user, reason or "its candidate was removed")


def set_traffic(
    lineage: Model,
    *,
    candidate_percent: float | None,
    shadow: bool | None,
    user: User | None,
    reason: str = "",
) -> Model:
    """The lineage, with this share of its requests answered by `candidate`, and copies sent to it (shadow) or not.

    None leaves a value as it is. The comparison of live and candidate begins anew. Raises PermissionDenied,
    InvalidInput for a share outside 0 to 100, StateForbids without an alias `candidate` or when it is live.
    """
    check(user, ACTIVATE, "change the traffic of lineages")
    if candidate_percent is not None and not (math.isfinite(candidate_percent) and 0.0 <= candidate_percent <= 100.0):
        raise InvalidInput(f"candidate_percent is a number from 0 to 100, not {candidate_percent}.")
    with transaction.atomic():
        lineage = _locked(lineage.pk, lineage.name)
        percent = lineage.candidate_percent if candidate_percent is None else candidate_percent
        is_shadow = lineage.shadow if shadow is None else shadow
        if percent or is_shadow:
            _check_candidate(lineage)
        _write_traffic(lineage, percent, is_shadow, user, reason)
    return lineage


def _check_candidate(lineage: Model) -> None:
    leads_to = dict(Alias.objects.filter(lineage=lineage, name__in=(CANDIDATE, LIVE)).values_list("name", "version"))
    if CANDIDATE not in leads_to:
        raise StateForbids(
            f"{lineage.name} has no candidate to send traffic to; set its alias `{CANDIDATE}` to a version first.",
            lineage=lineage.name,
        )
    if leads_to[CANDIDATE] == leads_to.get(LIVE):
        raise StateForbids(
            f"The candidate of {lineage.name} is live, so there is nothing to split; set its alias `{CANDIDATE}` to "
            "another version first.",
            lineage=lineage.name,
        )


def _write_traffic(lineage: Model, percent: float, shadow: bool, user: User | None, reason: str) -> None:
    if (lineage.candidate_percent, lineage.shadow) == (percent, shadow):
        return
    lineage.candidate_percent, lineage.shadow, lineage.traffic_changed_at = percent, shadow, timezone.now()
    lineage.save(update_fields=["candidate_percent", "shadow", "traffic_changed_at"])
    details = {"candidate_percent": percent, "shadow": shadow}
    _note(lineage, LineageChange.Kind.TRAFFIC, user, reason, details=details)


def _note(
    lineage: Model,
    kind: Any,
    user: User | None,
    reason: str,
    *,
    alias: str = "",
    version: ModelVersion | None = None,
    previous: ModelVersion | None = None,
    details: dict[str, Any] | None = None,
) -> None:
    LineageChange.objects.create(
        lineage=lineage,
        alias=alias,
        kind=kind,
        version=version,
        previous=previous,
        details=details or names_of(version, previous),
        reason=storable(reason)[:500],
        actor=actor_of(user),
        at=timezone.now(),
    )


def names_of(version: ModelVersion | None, previous: ModelVersion | None) -> dict[str, Any]:
    """What a LineageChange keeps when the versions' rows go."""
    return {"version_id": version and version.model_id, "previous_id": previous and previous.model_id}


# Questions


def live_of(lineage: Model) -> ModelVersion | None:
    """The version that the lineage's bare name answers with; None before its first load. One query."""
    alias = Alias.objects.select_related("version").defer(*large_columns("version"))
    found = alias.filter(lineage=lineage, name=LIVE).first()
    return None if found is None else found.version


def previous_live(lineage: Model) -> ModelVersion | None:
    """The version that a rollback without a name goes to: the last one that was live before the present one.

    Passed over: the live one, those that are gone or refused, and those that a rollback left. Two queries.
    """
    live = live_of(lineage)
    moves = LineageChange.objects.filter(
        lineage=lineage,
        alias=LIVE,
        version__lineage=lineage,
        version__missing_since=None,
        version__refusal="",
        version__rolled_back_at=None,
    )
    if live is not None:
        moves = moves.exclude(version=live.pk)
    move = moves.select_related("version").defer(*large_columns("version")).first()
    return move and move.version


def was_live(version: ModelVersion) -> bool:
    """Whether the version is live in its lineage, or was once. One query."""
    return LineageChange.objects.filter(lineage=version.lineage_id, alias=LIVE, version=version).exists()


def periods(lineage: Model, limit: int | None = None) -> list[Period]:
    """Who was live from when to when, the newest first; `limit` of them at most. One query."""
    found: list[Period] = []
    until = None
    moves = LineageChange.objects.filter(lineage=lineage, alias=LIVE).select_related("version")
    for move in moves.defer(*large_columns("version"))[:limit]:
        version_id = move.version.model_id if move.version else move.details.get("version_id") or ""
        operation_id = None if move.operation_id is None else str(move.operation_id)
        found.append(Period(version_id, move.at, until, str(move.kind), move.reason, move.actor, operation_id))
        until = move.at
    return found


def highest(versions: Iterable[ModelVersion]) -> ModelVersion | None:
    """The one with the highest version; None of none."""
    return max(versions, key=lambda version: version_key(version.version), default=None)


def named(name: str) -> ModelVersion:
    """The version that a name means at the management doors: a model_id, or a lineage's live version.

    A lineage without a live version means its highest one. With its lineage read; four queries at most. Raises
    UnknownModel.
    """
    versions = ModelVersion.objects.select_related("lineage")
    if "\0" in name:  # Postgres refuses to look for it
        raise UnknownModel("No model and no lineage has a NUL character in its name.")
    version = versions.filter(model_id=name).first()
    version = version or versions.filter(lineage__name=name, aliases__name=LIVE).first()
    if version is None:
        top = highest(versions.filter(lineage__name=name).only("version", "lineage__name"))
        version = top and versions.filter(pk=top.pk).first()
    if version is None:
        raise UnknownModel(f"No model and no lineage is named {name!r}; `manage.py models` lists them.", model_id=name)
    return version


def _locked(lineage_id: int, name: str) -> Model:
    """The lineage's row as it stands, locked; raises UnknownModel when it is gone."""
    lineage = Model.objects.select_for_update(no_key=True).filter(pk=lineage_id).first()
    if lineage is None:
        raise UnknownModel(f"The lineage of {name} is not registered any more.", lineage=name)
    return lineage


def _kind(kind: Any) -> OperationKind:
    # mypy takes the members of Django's enums for tuples.
    return OperationKind(kind)
