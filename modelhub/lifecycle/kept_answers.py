"""Forgetting what the response cache keeps: of one model, or of all. docs/caching.md."""

from __future__ import annotations

from typing import Any

from loaderd.client import LoaderClient
from modelhub.conf import config
from modelhub.lifecycle.actions import check_reachable
from modelhub.lifecycle.permissions import User, check
from modelhub.registry.models import ModelVersion

CLEAR = "registry.change_modelversion"


def clear_cache(version: ModelVersion | None, *, user: User | None) -> dict[str, Any]:
    """Has the inference door forget the answers that it keeps of this model; None: of all.

    Returns {"model_id" (None: all), "forgotten"}: how many answers they were. Raises PermissionDenied and
    LoaderUnreachable.
    """
    check(user, CLEAR, "change models")
    check_reachable("clearing the response cache")
    model_id = None if version is None else version.model_id
    return {"model_id": model_id, "forgotten": LoaderClient(config().control_socket).forget_answers(model_id)}
