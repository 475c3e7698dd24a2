"""Gives the two groups, where they exist, the permission that came with jobs."""

from django.db import migrations

CODENAME, PROSE = "view_job", "Can view job"


def add_permission(apps, schema_editor):
    """The permission's own row is made here: Django makes it after the last migration."""
    using = schema_editor.connection.alias
    groups = list(apps.get_model("auth", "Group").objects.using(using).filter(name__in=["viewers", "operators"]))
    if not groups:
        return
    content_type, _ = apps.get_model("contenttypes", "ContentType").objects.using(using).get_or_create(
        app_label="jobs", model="job"
    )
    permission, _ = apps.get_model("auth", "Permission").objects.using(using).get_or_create(
        content_type=content_type, codename=CODENAME, defaults={"name": PROSE}
    )
    for group in groups:
        group.permissions.add(permission)


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0002_permissions_of_the_lifecycle"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [migrations.RunPython(add_permission, migrations.RunPython.noop)]
