"""Who may do what: every user reads; acting needs the permission that the view names for its action."""

from __future__ import annotations

from typing import Any

from rest_framework.permissions import BasePermission
from rest_framework.request import Request


class MayAct(BasePermission):
    """Reads `permission_of_action` of the view: {action: "registry.load_modelversion"}.

    An action that is not named there needs a user and nothing more. Inactive and anonymous users: refused.
    """

    message = ""

    def has_permission(self, request: Request, view: Any) -> bool:
        user = request.user
        if not (user and user.is_authenticated):
            return False
        wanted = getattr(view, "permission_of_action", {}).get(getattr(view, "action", None))
        if wanted is None or user.has_perm(wanted):
            return True
        self.message = f"{user} lacks the permission {wanted}; an admin grants it to the user or to a group."
        return False
