"""A fresh installation has viewers and operators; people may change them."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group, User
from django.core.management import call_command

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
