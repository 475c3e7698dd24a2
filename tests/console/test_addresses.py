"""An address with a NUL is refused before anything looks for what it names: Postgres takes none in a value."""

from __future__ import annotations

import pytest
from django.test import Client

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    "address",
    [
        "/admin/find/?q=%00",
        "/admin/find/?q=load+%00",
        "/admin/telemetry/alert/?kind=%00",
        "/admin/lifecycle/operation/?status__exact=%00",
        "/admin/django_q/success/%00/change/",
        "/a%00b",
    ],
)
def test_a_nul_is_refused(admin: Client, address: str) -> None:
    response = admin.get(address)
    assert response.status_code == 400
    assert "NUL" in response.content.decode()
    assert "Content-Security-Policy" in response.headers


def test_what_only_looks_like_one_is_not(admin: Client) -> None:
    assert admin.get("/admin/find/", {"q": "%00"}).status_code == 200


def test_the_api_says_it_in_its_own_words(admin: Client) -> None:
    response = admin.get("/api/models/?search=%00")
    assert response.status_code == 400
    assert response.json()["error"]["code"]
