"""The two groups that a fresh installation has: viewers look, operators act."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.db import transaction

VIEWER_PERMISSIONS = (
    "registry.view_model",
    "registry.view_modelversion",
    "registry.view_alias",
    "lifecycle.view_operation",
    "lifecycle.view_statechange",
    "lifecycle.view_lineagechange",
    "lifecycle.view_loaderstatus",
    "telemetry.view_alert",
    "telemetry.view_sample",
    "telemetry.view_trace",
    "telemetry.view_comparison",
    "policy.view_policy",
    "policy.view_policychange",
    "jobs.view_job",
)
OPERATOR_PERMISSIONS = (
    *VIEWER_PERMISSIONS,
    "registry.load_modelversion",
    "registry.unload_modelversion",
    "registry.predict_modelversion",
    "registry.discover_modelversion",
    "registry.activate_modelversion",
    "telemetry.change_alert",  # to acknowledge them; nothing else of an alert can be changed
)
GROUPS = {"viewers": VIEWER_PERMISSIONS, "operators": OPERATOR_PERMISSIONS}


def create_groups(using: str = "default", **kwargs: Any) -> None:
    """Makes the groups that do not exist; one that exists is left as people changed it. After migrations.

    What a release adds to groups that exist is added once, by a migration (0002): who does not want it takes it away.
    """
    group_model = apps.get_model("auth", "Group")
    permission_model = apps.get_model("auth", "Permission")
    with transaction.atomic(using=using):
        for name, wanted in GROUPS.items():
            group, is_new = group_model.objects.using(using).get_or_create(name=name)
            if not is_new:
                continue
            known = {
                f"{permission.content_type.app_label}.{permission.codename}": permission
                for permission in permission_model.objects.using(using)
                .filter(content_type__app_label__in={permission.partition(".")[0] for permission in wanted})
                .select_related("content_type")
            }
            group.permissions.set([known[permission] for permission in wanted])
