"""The probes answer without a login and tell nothing else."""

from __future__ import annotations

import pytest
from django.db import OperationalError, connection
from django.db.migrations.executor import MigrationExecutor
from django.test import Client

from modelhub.api import probes


@pytest.fixture(autouse=True)
def forget_what_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "_migrations_seen_applied", False)


def test_livez_needs_no_database(client: Client) -> None:
    answer = client.get("/livez")
    assert (answer.status_code, answer.content) == (200, b"ok")
    assert "no-store" in answer.headers["Cache-Control"]


@pytest.mark.django_db
def test_readyz_when_the_database_is_migrated(client: Client) -> None:
    for _ in range(2):  # the second takes the short way
        answer = client.get("/readyz")
        assert (answer.status_code, answer.content) == (200, b"ok")


@pytest.mark.django_db
def test_readyz_waits_for_migrations(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MigrationExecutor, "migration_plan", lambda *args: [("registry", "0002")])
    answer = client.get("/readyz")
    assert (answer.status_code, answer.content) == (503, b"not ready")


@pytest.mark.django_db
@pytest.mark.parametrize("was_ready", [False, True])
def test_readyz_without_a_database(client: Client, monkeypatch: pytest.MonkeyPatch, was_ready: bool) -> None:
    def fail() -> None:
        raise OperationalError("db.internal is away")

    monkeypatch.setattr(probes, "_migrations_seen_applied", was_ready)
    monkeypatch.setattr(connection, "cursor", fail)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.content) == (503, b"not ready")


@pytest.mark.parametrize("address", ["/livez", "/readyz"])
def test_they_only_answer_to_get(client: Client, address: str) -> None:
    assert client.post(address).status_code == 405
