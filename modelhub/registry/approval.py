"""Approval: a person says that exactly these bytes may be loaded although their format can run code."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.utils import timezone

from loaderd import catalogue
from loaderd.errors import UnknownFramework
from modelhub.registry.models import ModelVersion

User = Any  # AbstractUser | AnonymousUser | None
APPROVE_PERMISSION = "registry.approve_modelversion"


class ApprovalRefused(Exception):
    """The bytes that were to be approved are not those that are registered, or not on disk."""


def needs_approval(version: ModelVersion) -> bool:
    """Whether a load would be refused because nobody approved bytes that can run code."""
    if version.is_approved:
        return False
    try:
        return catalogue.format_executes_code(version.framework, version.artifact_format)
    except UnknownFramework:  # its package was removed; nothing is known of the format
        return True


def approve(version: ModelVersion, user: User, digest: str | None = None) -> None:
    """Records that `user` approves the bytes of `digest`: what they saw; None: what `version` says.

    user: None is the operator of this machine, at its shell. Raises PermissionDenied, and ApprovalRefused
    when discovery sees other bytes now.
    """
    _check_permission(user)
    digest = version.digest if digest is None else digest
    values = {"approved_digest": digest, "approved_by": user, "approved_at": timezone.now()}
    present = ModelVersion.objects.filter(pk=version.pk, digest=digest, missing_since=None, refusal="")
    if not digest or not present.update(**values):
        version.refresh_from_db(fields=["digest", "missing_since", "refusal"])
        raise ApprovalRefused(f"{version.model_id} cannot be approved: {_why_not(version)}")
    _take_over(version, values)


def revoke(version: ModelVersion, user: User) -> None:
    """Takes the approval back; a model in memory stays there. Raises PermissionDenied."""
    _check_permission(user)
    values: dict[str, Any] = {"approved_digest": "", "approved_by": None, "approved_at": None}
    ModelVersion.objects.filter(pk=version.pk).update(**values)
    _take_over(version, values)


def _check_permission(user: User) -> None:
    if user is not None and not user.has_perm(APPROVE_PERMISSION):
        raise PermissionDenied(
            f"{user.get_username() or 'A stranger'} may not approve models; grant {APPROVE_PERMISSION}."
        )


def _why_not(version: ModelVersion) -> str:
    if version.missing_since is not None:
        return "its directory is gone; put it back and run discovery."
    if version.refusal:
        return f"discovery refuses it. {version.refusal}"
    return f"its files changed meanwhile (digest {version.digest[:12]} now); look at them and approve again."


def _take_over(version: ModelVersion, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(version, name, value)
