"""loaderd hears of every change of who may do what, once it is committed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import psycopg
import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from modelhub.accounts.models import ApiToken
from modelhub.accounts.signals import ACCESS_CHANNEL

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ada() -> User:
    return User.objects.create_user("ada", password="pass")


@pytest.fixture
def heard(ada: User) -> Iterator[Callable[[], int]]:
    """How many notifications came since the last call; asks the server, so all that were sent have come."""
    settings = connection.get_connection_params()
    wanted = {name: settings[name] for name in ("dbname", "user", "password", "host", "port") if settings.get(name)}
    with psycopg.connect(**wanted, autocommit=True) as listener:
        listener.execute(f"LISTEN {ACCESS_CHANNEL}")

        def count() -> int:
            listener.execute("SELECT 1")
            return len(list(listener.notifies(timeout=0)))

        yield count


def test_it_is_told_of_tokens(ada: User, heard: Callable[[], int]) -> None:
    token, _ = ApiToken.objects.create(ada)
    assert heard() == 1
    token.expiry = timezone.now() + timedelta(days=1)
    token.save()
    assert heard() == 1
    token.delete()
    assert heard() == 1


def test_it_is_told_of_users_groups_and_permissions(ada: User, heard: Callable[[], int]) -> None:
    ada.is_active = False
    ada.save()
    assert heard() == 1
    group = Group.objects.create(name="night shift")
    assert heard() == 1
    group.permissions.add(Permission.objects.get(codename="load_modelversion"))
    assert heard() >= 1
    ada.groups.add(group)
    assert heard() >= 1
    ada.user_permissions.add(Permission.objects.get(codename="predict_modelversion"))
    assert heard() >= 1
    ada.delete()
    assert heard() >= 1


def test_it_is_not_told_of_a_login(ada: User, heard: Callable[[], int]) -> None:
    assert Client().login(username="ada", password="pass")
    assert heard() == 0


def test_it_is_not_told_of_what_is_rolled_back(ada: User, heard: Callable[[], int]) -> None:
    with transaction.atomic():
        ApiToken.objects.create(ada)
        transaction.set_rollback(True)
    assert heard() == 0
