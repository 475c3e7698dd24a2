"""Gives the two groups, where they exist, the permissions that came with the lifecycle release."""

from django.db import migrations

VIEWERS = {
    "registry.view_alias": "Can view alias",
    "lifecycle.view_lineagechange": "Can view lineage change",
    "telemetry.view_alert": "Can view alert",
    "telemetry.view_sample": "Can view sample",
    "telemetry.view_trace": "Can view trace",
    "telemetry.view_comparison": "Can view comparison",
    "policy.view_policy": "Can view policy",
    "policy.view_policychange": "Can view policy change",
}
OPERATORS = {
    **VIEWERS,
    "registry.activate_modelversion": "Can activate versions, roll back, and set aliases and traffic",
    "telemetry.change_alert": "Can change alert",
}


def add_permissions(apps, schema_editor):
    """The permissions' own rows are made here: Django makes them after the last migration."""
    using = schema_editor.connection.alias
    groups = apps.get_model("auth", "Group").objects.using(using)
    for name, wanted in (("viewers", VIEWERS), ("operators", OPERATORS)):
        group = groups.filter(name=name).first()
        if group is not None:
            group.permissions.add(*(_permission(apps, using, label, prose) for label, prose in wanted.items()))


def _permission(apps, using, label, prose):
    app_label, _, codename = label.partition(".")
    content_type, _ = apps.get_model("contenttypes", "ContentType").objects.using(using).get_or_create(
        app_label=app_label, model=codename.partition("_")[2]
    )
    permission, _ = apps.get_model("auth", "Permission").objects.using(using).get_or_create(
        content_type=content_type, codename=codename, defaults={"name": prose}
    )
    return permission


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0001_initial"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [migrations.RunPython(add_permissions, migrations.RunPython.noop)]
