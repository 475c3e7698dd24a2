"""A person has seen an alert. Everyone acknowledges here: API, admin, command."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.utils import timezone

from loaderd.errors import PermissionDenied, StateForbids
from modelhub.actors import actor_of
from modelhub.telemetry.models import Alert

ACKNOWLEDGE_PERMISSION = "telemetry.change_alert"


def alerts() -> QuerySet[Alert]:
    """All alerts, newest first, with what is shown of their models and nothing more of them."""
    fields = [field.name for field in Alert._meta.concrete_fields]
    return Alert.objects.select_related("version").only(*fields, "version__model_id")


def acknowledge(alert: Alert, *, user: Any) -> Alert:
    """The alert as it stands afterwards; one that was acknowledged already keeps who did it first.

    user: None is the operator of this machine. Raises PermissionDenied; StateForbids when it is resolved.
    """
    if user is not None and not user.has_perm(ACKNOWLEDGE_PERMISSION):
        raise PermissionDenied(
            f"{user.get_username() or 'Nobody in particular'} may not acknowledge alerts; an administrator can grant "
            f"the permission {ACKNOWLEDGE_PERMISSION}."
        )
    Alert.objects.filter(pk=alert.pk, acknowledged_at=None, resolved_at=None).update(
        acknowledged_at=timezone.now(),
        acknowledged_by=user,
        acknowledged_by_name=actor_of(user),
    )
    present = alerts().get(pk=alert.pk)
    if present.acknowledged_at is None:
        raise StateForbids(f"Alert {alert.pk} is resolved; nothing is left to acknowledge.", alert=alert.pk)
    return present
