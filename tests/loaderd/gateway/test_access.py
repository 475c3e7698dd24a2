"""Who may what at the door."""

from __future__ import annotations

import time

import httpx
import pytest

from loaderd.errors import NotAuthenticated
from loaderd.gateway.access import Access
from tests.loaderd.gateway.conftest import Served
from tests.loaderd.gateway.door import Door, digest, grant


def test_both_schemes_name_the_caller_until_the_token_expires() -> None:
    now = [100.0]
    access = Access(clock=lambda: now[0])
    access.replace({digest("t"): grant("ada", "predict", expires_at=101.0)})
    for header in (b"Token t", b"Bearer t", b"token t"):
        assert access.caller(header).user == "ada"
    now[0] = 101.0
    with pytest.raises(NotAuthenticated, match="This token has expired"):
        access.caller(b"Token t")


@pytest.mark.parametrize("header", [None, b"", b"t", b"Basic t", b"Token", b"Token ", b"Token other", b"Bearer \xff"])
def test_anything_else_names_nobody(header: bytes | None) -> None:
    access = Access()
    access.replace({digest("t"): grant("ada")})
    with pytest.raises(NotAuthenticated):
        access.caller(header)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2"),
        ("GET", "/v2/models/echo-v1"),
        ("GET", "/v2/models/echo-v1/ready"),
        ("POST", "/v2/models/echo-v1/infer"),
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/echo-v1/load"),
        ("GET", "/anything"),
        ("POST", "/internal/models/echo-v1/predict"),
    ],
)
def test_everything_but_health_needs_a_token(door: Door, method: str, path: str) -> None:
    for client in (door.http(token=None), door.http(token="unknown")):
        response = client.request(method, path)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == 'Token realm="modelhub"'
        assert response.json()["code"] == "not_authenticated"


def test_health_needs_no_token_and_says_no_more(door: Door) -> None:
    client = door.http(token=None)
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"live": True, "ready": True}
    assert "server" not in client.get("/v2/health/live").headers


def test_permissions_are_asked_for_action_by_action(served: Served) -> None:
    door = served.door
    door.allow({"reader": grant("eve"), "loader": grant("bob", "load")})
    reader, loader = door.http("reader"), door.http("loader")
    door.route(served.table)  # the access table was taken before it
    assert reader.get("/v2/models/echo-v1").status_code == 200
    assert reader.post("/v2/repository/index").status_code == 200
    for client, path, word in (
        (reader, "/v2/models/echo-v1/infer", "predict"),
        (reader, "/v2/repository/models/echo-v1/load", "load"),
        (loader, "/v2/repository/models/echo-v1/unload", "unload"),
    ):
        response = client.post(path, json={})
        assert response.status_code == 403
        assert f"may not {word} models" in response.json()["error"]
    door.answer = lambda message: {"state": "succeeded", "result": {}, "error": None}
    assert loader.post("/v2/repository/models/echo-v1/load", json={}).status_code == 200


def test_a_revoked_and_an_expired_token_are_refused_at_once(door: Door) -> None:
    client = door.http()
    assert client.get("/v2").status_code == 200
    door.allow({"everything": grant("ada", "predict", expires_at=time.time() - 1)})
    door.route({})
    assert client.get("/v2").status_code == 401
    door.allow({})
    door.route({})
    assert "not known" in client.get("/v2").json()["error"]


def test_the_private_door_needs_no_token_and_is_private(door: Door) -> None:
    assert door.unix_path.stat().st_mode & 0o777 == 0o600
    assert door.private().get("/v2").status_code == 200
    assert isinstance(door.private().get("/v2"), httpx.Response)
