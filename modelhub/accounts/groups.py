"""The two groups that a fresh installation has: viewers look, operators act."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.db import transaction

VIEWER_PERMISSIONS = (
    "registry.view_model",
    "registry.view_modelversion",
    "lifecycle.view_operation",
    "lifecycle.view_statechange",
    "lifecycle.view_loaderstatus",
)
OPERATOR_PERMISSIONS = (
    *VIEWER_PERMISSIONS,
    "registry.load_modelversion",
    "registry.unload_modelversion",
    "registry.predict_modelversion",
    "registry.discover_modelversion",
)
GROUPS = {"viewers": VIEWER_PERMISSIONS, "operators": OPERATOR_PERMISSIONS}


def create_groups(using: str = "default", **kwargs: Any) -> None:
    """Makes the groups that do not exist; one that exists is left as people changed it. After migrations."""
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
                .filter(content_type__app_label__in=("registry", "lifecycle"))
                .select_related("content_type")
            }
            group.permissions.set([known[permission] for permission in wanted])
