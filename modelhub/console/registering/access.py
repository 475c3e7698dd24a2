"""Who may register models by hand, and who may change what they say of themselves."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied

DISCOVER = "registry.discover_modelversion"
ADD = "registry.add_modelversion"
CHANGE = "registry.change_modelversion"


def may_register(user: Any) -> bool:
    return bool(user.has_perms((ADD, DISCOVER)))


def may_describe(user: Any) -> bool:
    return bool(user.has_perms((CHANGE, DISCOVER)))


def check_register(user: Any) -> None:
    """Raises PermissionDenied."""
    if not may_register(user):
        raise PermissionDenied(f"Registering models needs the permissions {ADD} and {DISCOVER}.")


def check_describe(user: Any) -> None:
    """Raises PermissionDenied."""
    if not may_describe(user):
        raise PermissionDenied(f"Editing what models say of themselves needs {CHANGE} and {DISCOVER}.")
