"""Lineages of before aliases get their live version: what their bare name meant, the highest version in use."""

from typing import Any

from django.db import migrations
from django.db.models import Q
from django.utils import timezone

from loaderd.version_order import version_key

ACTOR = "upgrade"


def set_live(apps: Any, schema_editor: Any) -> None:
    alias, change, version = (
        apps.get_model(*names)
        for names in (("registry", "Alias"), ("lifecycle", "LineageChange"), ("registry", "ModelVersion"))
    )
    in_use = Q(status="loaded") | Q(desired_state="loaded", missing_since=None, refusal="")
    rows = version.objects.filter(in_use).only("model_id", "version", "lineage")
    rows = rows.exclude(lineage__in=alias.objects.filter(name="live").values("lineage"))
    highest: dict[int, Any] = {}
    for row in rows:
        other = highest.get(row.lineage_id)
        if other is None or version_key(row.version) > version_key(other.version):
            highest[row.lineage_id] = row
    now = timezone.now()
    alias.objects.bulk_create(
        alias(lineage_id=lineage_id, name="live", version=row, set_at=now, set_by=ACTOR)
        for lineage_id, row in highest.items()
    )
    change.objects.bulk_create(
        change(
            lineage_id=lineage_id,
            alias="live",
            kind="first",
            version=row,
            details={"version_id": row.model_id, "previous_id": None},
            reason="the highest version in use when aliases came",
            actor=ACTOR,
            at=now,
        )
        for lineage_id, row in highest.items()
    )


class Migration(migrations.Migration):
    dependencies = [("lifecycle", "0002_versions_and_optimising"), ("registry", "0002_aliases_policy_health")]

    operations = [migrations.RunPython(set_live, migrations.RunPython.noop)]
