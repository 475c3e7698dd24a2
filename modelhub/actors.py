"""Who did it, as every history, alert and trace names it: a user, or one of three that are none.

docs/versions.md tells people the same.
"""

from __future__ import annotations

from typing import Any

OPERATOR = "operator"  # whoever ran a manage.py command without --user: the shell's login is not Modelhub's
SYSTEM = "system"  # Modelhub itself: its start, loads on demand, programs in Python that name no user
LOADERD = "loaderd"  # loaderd decided by itself: evictions, restarts, health

COMMAND = "command"  # the source of what manage.py asks for; see Operation.source


def actor_of(user: Any, source: str = COMMAND) -> str:
    """The name that is kept. user: None is the operator or, from any other source than a command, the system."""
    return named(user.get_username() if user is not None else "", source)


def named(username: str, source: str) -> str:
    """As actor_of, where only the user's name was kept, "" for none."""
    return username or (OPERATOR if source == COMMAND else SYSTEM)
