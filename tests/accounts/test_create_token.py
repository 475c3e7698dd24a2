"""manage.py create_token prints a token that opens the API, and nothing else."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.utils import timezone
from knox.crypto import hash_token

from modelhub.accounts.models import ApiToken

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada() -> User:
    return User.objects.create_user("ada")


def test_it_prints_only_the_token_and_keeps_only_its_digest(ada: User, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("create_token", "ada", "--name", "laptop")
    printed = capsys.readouterr()
    token = printed.out.removesuffix("\n")
    kept = ApiToken.objects.get()
    assert len(token) == 64
    assert token.isalnum()
    assert printed.err == ""
    assert (kept.digest, kept.user, kept.name, kept.expiry) == (hash_token(token), ada, "laptop", None)


def test_it_expires_after_the_days_given(ada: User) -> None:
    call_command("create_token", "ada", "--expires-days", "2")
    left = ApiToken.objects.get().expiry - timezone.now()
    assert timedelta(days=1, hours=23) < left <= timedelta(days=2)


@pytest.mark.parametrize("days", ["0", "-1", "nan", "1e9"])
def test_it_refuses_days_that_make_no_sense(ada: User, days: str) -> None:
    with pytest.raises(CommandError, match="--expires-days") as refused:
        call_command("create_token", "ada", f"--expires-days={days}")
    assert refused.value.returncode == 2
    assert not ApiToken.objects.exists()


def test_it_names_a_user_that_does_not_exist() -> None:
    with pytest.raises(CommandError, match="No user is named 'bob'"):
        call_command("create_token", "bob")


def test_it_refuses_an_inactive_user() -> None:
    User.objects.create_user("gone", is_active=False)
    with pytest.raises(CommandError, match="not active"):
        call_command("create_token", "gone")


def test_json_tells_token_user_and_expiry(ada: User, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("create_token", "ada", "--name", "laptop", "--json")
    told = json.loads(capsys.readouterr().out)
    assert hash_token(told.pop("token")) == ApiToken.objects.get().digest
    assert told == {"user": "ada", "name": "laptop", "expires_at": None}
