"""Memory optimisation: unloads what nobody needs. loaderd decides what that is; see docs/configuration.md."""

from __future__ import annotations

from datetime import timedelta

from django.db import connection, transaction
from django.db.models.functions import Coalesce
from django.utils import timezone

from modelhub.lifecycle.actions import check_reachable, enqueue, new_operation
from modelhub.lifecycle.models import ACTIVE, Operation, OperationKind
from modelhub.lifecycle.permissions import User, check_permission
from modelhub.policy.effective import effective
from modelhub.registry.choices import Status
from modelhub.registry.models import ModelVersion, large_columns


def request_optimize(*, user: User | None, source: str, reason: str = "") -> Operation:
    """The operation that unloads what is unused or little used: new, or the one that is under way.

    Its result: {"status": "completed", "unloaded": [{"model_id", "promised_bytes", "freed_bytes", "reason"}],
    "promised_bytes", "freed_bytes", "seconds"}. Raises PermissionDenied, LoaderUnreachable.
    """
    kind = OperationKind("optimize")
    check_permission(user, kind)
    with transaction.atomic():
        # No row stands for all models; this lock makes two requests at the same time one operation.
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('modelhub.optimize', 0))")
        check_reachable("the optimisation")
        under_way = Operation.objects.filter(kind=kind, version=None, status__in=ACTIVE).first()
        return under_way or enqueue(new_operation(kind, None, user, source, reason, {}))


def find_unused(threshold_hours: float | None = None) -> list[ModelVersion]:
    """The loaded models that nobody asked in the last hours, nor loaded, the longest unused first; pinned ones too.

    threshold_hours: None is UNUSED_MODEL_TIMEOUT_HOURS as it is in force. With their lineages read.
    """
    hours = effective().UNUSED_MODEL_TIMEOUT_HOURS if threshold_hours is None else threshold_hours
    loaded = ModelVersion.objects.filter(status=Status.LOADED).select_related("lineage").defer(*large_columns())
    # A model that was never asked counts from its load; one that was asked before that load does, too.
    idle = loaded.annotate(needed_at=Coalesce("last_used_at", "last_loaded_at"))
    since = timezone.now() - timedelta(hours=hours)
    return list(idle.filter(needed_at__lt=since).exclude(last_loaded_at__gte=since).order_by("needed_at", "model_id"))
