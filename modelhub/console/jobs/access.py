"""Who may have a file predicted."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied

from modelhub.jobs.models import PREDICT


def may_predict(user: Any) -> bool:
    return bool(user.has_perm(PREDICT))


def check_predict(user: Any) -> None:
    """Raises PermissionDenied."""
    if not may_predict(user):
        raise PermissionDenied(f"Having a file predicted needs the permission {PREDICT}.")
