"""Who may ask for what. Everyone asks here, whatever the door."""

from __future__ import annotations

from typing import TypeAlias

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser

from loaderd.errors import PermissionDenied
from modelhub.lifecycle.models import OperationKind

User: TypeAlias = AbstractBaseUser | AnonymousUser

LOAD, UNLOAD, ACTIVATE = (f"registry.{verb}_modelversion" for verb in ("load", "unload", "activate"))

_NEEDED = {
    OperationKind.LOAD: (LOAD, "load models"),
    OperationKind.UNLOAD: (UNLOAD, "unload models"),
    OperationKind.ACTIVATE: (ACTIVATE, "activate versions"),
    OperationKind.ROLLBACK: (ACTIVATE, "roll back"),
    OperationKind.OPTIMIZE: (UNLOAD, "optimise memory, which unloads models"),
}


def check_permission(user: User | None, kind: OperationKind) -> None:
    """Raises PermissionDenied when the user may not ask for this. None is the operator or the system, who may."""
    check(user, *_NEEDED[kind])


def check(user: User | None, permission: str, what: str) -> None:
    """Raises PermissionDenied, which says that the user may not `what`. None is the operator, who may."""
    if user is not None and not user.has_perm(permission):
        raise PermissionDenied(
            f"{user.get_username() or 'Nobody in particular'} may not {what}; an administrator can grant "
            f"the permission {permission}."
        )
