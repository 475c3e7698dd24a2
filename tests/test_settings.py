"""Django's settings differ by the part that reads them and by what stands in front."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modelhub.conf import PROJECT_DIR
from tests.environment import for_child

NAMES = ("DATABASES", "SESSION_COOKIE_SECURE", "SECURE_SSL_REDIRECT", "ALLOWED_HOSTS", "Q_CLUSTER")
CODE = f"""
import json, os
from modelhub import settings
found = {{name: getattr(settings, name, None) for name in {NAMES!r}}}
found["PG"] = [name for name in os.environ if name.startswith("PG")]
print(json.dumps(found))
"""


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def _read(**env: str) -> Any:
        ran = subprocess.run(
            [sys.executable, "-c", CODE],
            cwd=PROJECT_DIR,
            env=for_child(MODELHUB_STATE_DIR=str(tmp_path), **env),
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    return _read


def test_only_the_web_pools_its_connections(read: Any) -> None:
    web = read(MODELHUB_PART="web")["DATABASES"]["default"]
    assert web["OPTIONS"]["pool"]["max_size"] >= 16
    assert web["CONN_MAX_AGE"] == 0
    for part in ("queue", "loaderd", ""):
        other = read(MODELHUB_PART=part)["DATABASES"]["default"]
        assert "pool" not in other["OPTIONS"]
        assert other["CONN_MAX_AGE"] is None
        assert other["CONN_HEALTH_CHECKS"] is True


def test_what_the_shell_says_of_other_servers_is_dropped_for_the_embedded_one_only(read: Any) -> None:
    assert read(PGPORT="1", PGSERVICE="other")["PG"] == []
    assert read(PGSSLROOTCERT="/ca.pem", DATABASE_URL="postgres://u@db.example.com/x")["PG"] == ["PGSSLROOTCERT"]


def test_an_address_of_its_own_keeps_its_options(read: Any) -> None:
    database = read(DATABASE_URL="postgres://u:p@db.example.com:6000/hub?sslmode=require")["DATABASES"]["default"]
    assert (database["HOST"], database["PORT"], database["NAME"]) == ("db.example.com", 6000, "hub")
    assert database["OPTIONS"]["sslmode"] == "require"


def test_behind_a_tls_proxy_cookies_travel_by_tls_only(read: Any) -> None:
    assert read()["SESSION_COOKIE_SECURE"] is None
    behind = read(BEHIND_TLS_PROXY="true", ALLOWED_HOSTS="models.example.com, 10.0.0.1")
    assert behind["SESSION_COOKIE_SECURE"] is True
    assert behind["SECURE_SSL_REDIRECT"] is True
    assert behind["ALLOWED_HOSTS"] == ["models.example.com", "10.0.0.1"]


def test_a_task_is_not_handed_out_twice_at_once(read: Any) -> None:
    queue = read(QUEUE_WORKERS="3")["Q_CLUSTER"]
    assert queue["retry"] > queue["timeout"]
    assert queue["queue_limit"] == queue["workers"] == 3
