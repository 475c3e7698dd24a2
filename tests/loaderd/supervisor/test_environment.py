from __future__ import annotations

import pytest

from loaderd.supervisor.environment import clean_environment, gateway_environment

SECRET = "authorization=Bearer%20s3cret"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", SECRET)
    monkeypatch.setenv("DATABASE_URL", "postgres://secret")
    monkeypatch.setenv("LANG", "C.UTF-8")


def test_foreign_code_gets_no_credential() -> None:
    assert clean_environment()["LANG"] == "C.UTF-8"
    assert not [value for value in clean_environment().values() if "s3cret" in value or "postgres" in value]


def test_the_gateway_gets_what_opentelemetry_is_configured_with_and_nothing_else() -> None:
    assert gateway_environment() == clean_environment() | {"OTEL_EXPORTER_OTLP_HEADERS": SECRET}
