"""What a person may do with a model in the state it is in: buttons that open the dialogs of the commands."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.urls import reverse

from loaderd.states import ModelState
from modelhub.lifecycle.permissions import ACTIVATE, LOAD, UNLOAD
from modelhub.registry.approval import APPROVE_PERMISSION
from modelhub.registry.models import ModelVersion

CHANGE = "registry.change_modelversion"
_ASKED = (LOAD, UNLOAD, ACTIVATE, CHANGE, APPROVE_PERMISSION, "registry.delete_modelversion")


@dataclass(frozen=True, slots=True)
class Offer:
    """A button. url: of the dialog that states the effect. is_main: what one would do first."""

    title: str
    url: str
    is_main: bool = False


def rights_of(user: Any) -> frozenset[str]:
    """The permissions of a user that offers depend on, asked for once a page."""
    return frozenset(permission for permission in _ASKED if user.has_perm(permission))


def check_may_see(request: HttpRequest) -> None:
    """Raises PermissionDenied for who may not look at models."""
    if not any(request.user.has_perm(f"registry.{verb}_modelversion") for verb in ("view", "change")):
        raise PermissionDenied


def offers(
    version: ModelVersion, status: str, rights: Container[str], *, is_live: bool, was_live: bool = False
) -> list[Offer]:
    """What makes sense now, the first thing first. status: as effective_status() tells it. No query.

    Nothing while loaderd is away or the model is on its way; no load of what discovery did not find or refused.
    """
    found: list[Offer] = []
    if status not in (ModelState.UNLOADED, ModelState.LOADED, ModelState.ERROR):
        return found

    def offer(title: str, command: str, *, is_main: bool = False) -> None:
        found.append(Offer(title, reverse(f"admin:registry_modelversion_{command}", args=[version.pk]), is_main))

    is_there = version.missing_since is None and not version.refusal
    if status != ModelState.LOADED and is_there and LOAD in rights:
        offer("Load again" if status == ModelState.ERROR else "Load", "load", is_main=True)
    if status == ModelState.LOADED and UNLOAD in rights:
        offer("Unload", "unload")
    if not is_live and is_there and ACTIVATE in rights:
        offer("Activate", "activate", is_main=status == ModelState.LOADED)
        if was_live:
            offer("Roll back to this", "rollback")
    return found
