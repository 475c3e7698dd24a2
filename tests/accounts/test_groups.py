"""A fresh installation has viewers and operators; people may change them."""

from __future__ import annotations

import importlib

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission, User
from django.core.management import call_command
from django.db import connection

from modelhub.accounts.groups import GROUPS

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("name", GROUPS)
def test_the_group_holds_its_permissions(name: str) -> None:
    user = User.objects.create_user("ada")
    user.groups.add(Group.objects.get(name=name))
    assert user.get_all_permissions() == set(GROUPS[name])


def test_viewers_cannot_act_and_operators_cannot_approve() -> None:
    assert all(".view_" in permission for permission in GROUPS["viewers"])
    assert "registry.approve_modelversion" not in GROUPS["operators"]


def test_a_group_that_people_changed_stays_as_it_is() -> None:
    viewers = Group.objects.get(name="viewers")
    viewers.permissions.clear()
    call_command("migrate", verbosity=0)
    assert not viewers.permissions.exists()


class TestUpgrade:
    """Groups of the foundation release get what came with the lifecycle, once."""

    @pytest.fixture
    def migration(self):
        return importlib.import_module("modelhub.accounts.migrations.0002_permissions_of_the_lifecycle")

    def test_it_brings_the_groups_to_where_a_fresh_installation_is(self, migration) -> None:
        for name, added in (("viewers", migration.VIEWERS), ("operators", migration.OPERATORS)):
            group = Group.objects.get(name=name)
            before = {label.partition(".")[2] for label in set(GROUPS[name]) - set(added)}
            group.permissions.set(Permission.objects.filter(codename__in=before))
        # Django makes their rows after the last migration.
        Permission.objects.filter(content_type__app_label__in=["telemetry", "policy"]).delete()
        migration.add_permissions(apps, connection.schema_editor())
        for name, wanted in GROUPS.items():
            user = User.objects.create_user(f"one of {name}")
            user.groups.add(Group.objects.get(name=name))
            assert user.get_all_permissions() == set(wanted)

    def test_the_rows_that_it_makes_are_as_django_would_make_them(self, migration) -> None:
        for label, prose in migration.OPERATORS.items():
            app_label, _, codename = label.partition(".")
            assert Permission.objects.get(content_type__app_label=app_label, codename=codename).name == prose

    def test_without_the_groups_there_is_nothing_to_do(self, migration) -> None:
        Group.objects.all().delete()
        migration.add_permissions(apps, connection.schema_editor())
        assert not Group.objects.exists()
