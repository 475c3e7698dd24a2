"""Tokens in the admin: shown once, never editable, and nobody makes one for somebody else."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from knox.crypto import hash_token
from pytest_django import DjangoAssertNumQueries

from modelhub.accounts.models import ApiToken

pytestmark = pytest.mark.django_db
ADD = "/admin/accounts/apitoken/add/"


@pytest.fixture
def keeper(client: Client) -> User:
    """Logged in; may manage tokens, and is no superuser."""
    user = User.objects.create_user("keeper", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="accounts"))
    client.force_login(user)
    return user


def change_address(token: ApiToken) -> str:
    return reverse("admin:accounts_apitoken_change", args=[token.pk])


def test_a_new_token_is_shown_once(admin_client: Client, admin_user: User) -> None:
    answer = admin_client.post(ADD, {"name": "ci", "user": admin_user.pk, "expiry_0": "", "expiry_1": ""}, follow=True)
    shown = re.search(r'<code [^>]*id="mh-token">([0-9a-f]{64})</code>', answer.content.decode())
    kept = ApiToken.objects.get()
    assert shown
    assert hash_token(shown[1]) == kept.digest
    assert 'data-mh-copy="mh-token"' in answer.content.decode()
    assert "no-store" in answer.headers["Cache-Control"]
    assert shown[1] not in admin_client.get("/admin/accounts/apitoken/").content.decode()
    assert shown[1] not in admin_client.get(change_address(kept)).content.decode()


def test_a_new_token_is_in_no_cookie(admin_client: Client, admin_user: User) -> None:
    answer = admin_client.post(ADD, {"name": "ci", "user": admin_user.pk, "expiry_0": "", "expiry_1": ""})
    assert answer.status_code == 302
    kept = ApiToken.objects.get()
    assert not any(kept.token_key in cookie.value for cookie in answer.cookies.values())
    assert "messages" not in answer.cookies


def test_only_name_and_expiry_can_change(admin_client: Client, admin_user: User) -> None:
    token, _ = ApiToken.objects.create(admin_user)
    other = User.objects.create_user("other")
    sent = {"name": "new name", "user": other.pk, "digest": "0" * 128, "token_key": "0" * 15}
    answer = admin_client.post(change_address(token), {**sent, "expiry_0": "2099-01-01", "expiry_1": "00:00:00"})
    assert answer.status_code == 302
    kept = ApiToken.objects.get()
    assert (kept.digest, kept.token_key, kept.user) == (token.digest, token.token_key, admin_user)
    assert kept.name == "new name"
    assert kept.expiry is not None


def test_who_is_no_superuser_makes_tokens_only_for_themselves(client: Client, keeper: User, admin_user: User) -> None:
    refused = client.post(ADD, {"name": "x", "user": admin_user.pk, "expiry_0": "", "expiry_1": ""})
    assert refused.status_code == 200
    assert not ApiToken.objects.exists()
    client.post(ADD, {"name": "x", "user": keeper.pk, "expiry_0": "", "expiry_1": ""})
    assert ApiToken.objects.get().user == keeper


def test_who_is_no_superuser_sees_only_their_own(client: Client, keeper: User, admin_user: User) -> None:
    ApiToken.objects.create(admin_user, name="of-the-boss")
    assert "of-the-boss" not in client.get("/admin/accounts/apitoken/").content.decode()


def test_who_makes_tokens_and_may_see_none_is_shown_it_all_the_same(client: Client) -> None:
    user = User.objects.create_user("maker", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="add_apitoken"))
    client.force_login(user)
    answer = client.post(ADD, {"name": "x", "user": user.pk, "expiry_0": "", "expiry_1": ""}, follow=True)
    shown = re.search(r"<code>([0-9a-f]{64})</code>", answer.content.decode())
    assert shown
    assert hash_token(shown[1]) == ApiToken.objects.get().digest


class TestRevoking:
    LIST = "/admin/accounts/apitoken/"

    def test_one_by_its_page_which_says_what_it_means(self, admin_client: Client, admin_user: User) -> None:
        token, _ = ApiToken.objects.create(admin_user, name="ci")
        address = reverse("admin:accounts_apitoken_delete", args=[token.pk])
        assert "are refused at once" in admin_client.get(address).content.decode()
        assert ApiToken.objects.exists()
        assert admin_client.post(address, {"post": "yes"}).status_code == 302
        assert not ApiToken.objects.exists()
        assert LogEntry.objects.get().action_flag == DELETION

    def test_several_from_the_list(self, admin_client: Client, admin_user: User) -> None:
        made = [ApiToken.objects.create(admin_user, name=f"t{number}")[0] for number in range(2)]
        assert "delete_selected" not in admin_client.get(self.LIST).content.decode()
        chosen = {"action": "revoke_selected", "_selected_action": [token.pk for token in made]}
        answer = admin_client.post(self.LIST, chosen, follow=True)
        assert [str(message) for message in answer.context["messages"]] == [
            "Revoked: t1 of admin.",
            "Revoked: t0 of admin.",
        ]
        assert not ApiToken.objects.exists()
        assert LogEntry.objects.count() == 2

    def test_not_those_of_others_and_not_without_the_permission(
        self, client: Client, keeper: User, admin_user: User
    ) -> None:
        theirs, _ = ApiToken.objects.create(admin_user)
        client.post(self.LIST, {"action": "revoke_selected", "_selected_action": [theirs.pk]})
        assert client.post(reverse("admin:accounts_apitoken_delete", args=[theirs.pk])).status_code == 302
        own, _ = ApiToken.objects.create(keeper)
        keeper.user_permissions.set(Permission.objects.filter(codename="view_apitoken"))
        client.post(self.LIST, {"action": "revoke_selected", "_selected_action": [own.pk]})
        assert client.post(reverse("admin:accounts_apitoken_delete", args=[own.pk])).status_code == 403
        assert ApiToken.objects.count() == 2


def test_the_list_tells_who_expired_and_costs_the_same(
    admin_client: Client, admin_user: User, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(20):
        token, _ = ApiToken.objects.create(admin_user, name=f"t{number}")
        if number % 2:
            ApiToken.objects.filter(pk=token.pk).update(expiry=timezone.now() - timedelta(hours=1))
    admin_client.get("/admin/accounts/apitoken/")
    with django_assert_max_num_queries(10):
        page = admin_client.get("/admin/accounts/apitoken/").content.decode()
    assert page.count(">expired<") == page.count(">valid<") == 10
    found = admin_client.get("/admin/accounts/apitoken/?state=expired").context["cl"].result_list
    assert len(found) == 10


@pytest.mark.parametrize(
    "page", ["auth/user/", "auth/user/add/", "auth/group/", "auth/group/add/", "accounts/apitoken/"]
)
def test_the_pages_open(admin_client: Client, page: str) -> None:
    assert admin_client.get(f"/admin/{page}").status_code == 200
