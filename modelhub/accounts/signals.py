"""Tells loaderd, through NOTIFY, that its table of tokens is out of date.

The notification leaves with the transaction that made the change, and not at all when that is rolled back.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import connections
from django.db.models.signals import m2m_changed, post_delete, post_save

from modelhub.accounts.models import ApiToken

ACCESS_CHANNEL = "modelhub_access"


def notify_access_changed(using: str = "default", **kwargs: Any) -> None:
    # Each login writes last_login; it changes nobody's access.
    if kwargs.get("update_fields") == frozenset({"last_login"}):
        return
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s, '')", [ACCESS_CHANNEL])


def connect() -> None:
    user_model = get_user_model()
    for sender in (ApiToken, user_model, Group):
        for signal in (post_save, post_delete):
            signal.connect(notify_access_changed, sender=sender, dispatch_uid=f"accounts.access.{sender.__name__}")
    for through in (user_model.groups.through, user_model.user_permissions.through, Group.permissions.through):
        m2m_changed.connect(notify_access_changed, sender=through, dispatch_uid=f"accounts.access.{through.__name__}")
