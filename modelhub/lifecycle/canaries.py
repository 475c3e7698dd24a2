"""Forgetting the canary that a load recorded, when another answer has become the right one: another library, say.

The bytes are the same, so nothing else would ever replace it; until then their loads fail with `canary_failed`.
"""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.utils import timezone

from loaderd.errors import StateForbids, UnknownModel
from modelhub.actors import actor_of
from modelhub.lifecycle.models import StateChange
from modelhub.lifecycle.permissions import User, check
from modelhub.lifecycle.storable import storable
from modelhub.registry.artifacts import declared_canary
from modelhub.registry.choices import Status
from modelhub.registry.models import ModelVersion

FORGET = "registry.change_modelversion"


def forget_canary(version: ModelVersion, *, user: User | None, reason: str = "") -> dict[str, Any]:
    """Takes the recorded canary away; the next load records a new one. A process that runs now is still checked by the
    old one, until it is loaded again.

    Returns {"model_id", "digest", "canary"}: what was forgotten, and the bytes that it was recorded of. The model's
    history gets a line, from its state to the same. Raises PermissionDenied, UnknownModel, and StateForbids when
    there is none, or metadata.json declares it.
    """
    check(user, FORGET, "change models")
    with transaction.atomic():
        rows = ModelVersion.objects.select_for_update(no_key=True).only(
            "model_id", "status", "metadata", "canary", "canary_digest"
        )
        present = rows.filter(pk=version.pk).first()
        if present is None:
            raise UnknownModel(f"{version.model_id} is not registered any more.", model_id=version.model_id)
        _check(present)
        forgotten = {"model_id": present.model_id, "digest": present.canary_digest, "canary": present.canary}
        ModelVersion.objects.filter(pk=present.pk).update(canary=None, canary_digest="")
        why = f": {storable(reason)[:500]}" if reason else ""
        StateChange.objects.create(
            version=present,
            from_state=present.status,
            to_state=present.status,
            reason=f"the recorded canary was forgotten{why}",
            actor=actor_of(user),
            at=timezone.now(),
        )
    return forgotten


def plan_forget_canary(version: ModelVersion) -> dict[str, Any]:
    """{"sentence"}: what forgetting would do; raises StateForbids as forget_canary does."""
    _check(version)
    running = version.status in (Status.LOADING, Status.LOADED, Status.UNLOADING)
    until = " The process that runs now is checked by the old one until then." if running else ""
    return {
        "sentence": f"What {version.model_id} answered when it was loaded first is forgotten; what it answers at its "
        f"next load is taken for right from then on.{until}"
    }


def _check(version: ModelVersion) -> None:
    """Raises StateForbids when nothing is recorded that counts."""
    model_id = version.model_id
    if declared_canary(version) is not None:
        raise StateForbids(
            f'The canary of {model_id} is declared in its metadata.json and is not forgotten; correct "canary" there, '
            "or take it out, then run `manage.py discover`.",
            model_id=model_id,
        )
    if version.canary is None:
        raise StateForbids(
            f"No canary is recorded of {model_id}, so none is to be forgotten; its next load records one.",
            model_id=model_id,
        )
