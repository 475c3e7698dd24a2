"""Prometheus reads the web door: true figures, few queries, bounded series, and not for everybody."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from modelhub.accounts.models import ApiToken
from modelhub.console.metrics import MOST_MODELS
from modelhub.lifecycle.models import LoaderStatus, Operation
from modelhub.registry.choices import Status
from modelhub.registry.models import Model, ModelVersion
from modelhub.telemetry.models import Alert

pytestmark = pytest.mark.django_db


@pytest.fixture
def scraper() -> User:
    user = User.objects.create_user("prometheus")
    user.user_permissions.add(Permission.objects.get(codename="view_modelversion"))
    return user


@pytest.fixture
def loaderd() -> LoaderStatus:
    facts = {"budget": {"used_bytes": 300 << 20, "reserved_bytes": 0, "budget_bytes": 600 << 20}}
    return LoaderStatus.objects.create(pk=1, pid=1, started_at=timezone.now(), observed_at=timezone.now(), facts=facts)


def register(count: int, **fields: Any) -> list[ModelVersion]:
    lineage, _ = Model.objects.get_or_create(name="mail")
    begin = ModelVersion.objects.count()
    return ModelVersion.objects.bulk_create(
        ModelVersion(
            lineage=lineage, model_id=f"m{number:04}", name="m", version=str(number), path=f"x/{number}", **fields
        )
        for number in range(begin, begin + count)
    )


def scrape(client: Client, user: User) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """(name, labels) -> value, read as Prometheus reads it."""
    _, token = ApiToken.objects.create(user)
    answer = client.get("/metrics", headers={"Authorization": f"Token {token}"})
    assert answer.status_code == 200
    families = text_string_to_metric_families(answer.content.decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def of(figures: dict[Any, float], name: str, **labels: str) -> float | None:
    return figures.get((f"modelhub_{name}", tuple(sorted(labels.items()))))


def test_it_tells_models_operations_queue_alerts_and_loaderd(
    client: Client, scraper: User, loaderd: LoaderStatus
) -> None:
    (loaded,) = register(
        1,
        status=Status.LOADED,
        health_status="degraded",
        private_bytes=200 << 20,
        usage_count=7,
        prediction_error_count=2,
        latency_seconds_total=0.5,
        last_used_at=timezone.now(),
    )
    register(1)
    long_ago = timezone.now() - timedelta(hours=2)
    Operation.objects.create(kind="load", version=loaded, status="succeeded")
    Operation.objects.create(kind="load", version=loaded, status="failed", requested_at=long_ago)
    Operation.objects.create(kind="activate", version=loaded, status="running", requested_at=long_ago)
    Operation.objects.create(kind="optimize")
    now = timezone.now()
    Alert.objects.create(key="a", kind="memory", opened_at=now, last_seen_at=now)
    Alert.objects.create(key="b", kind="memory", opened_at=now, last_seen_at=now, resolved_at=now)
    figures = scrape(client, scraper)
    assert of(figures, "registry_model_state", model="m0000", state="loaded") == 1
    assert of(figures, "registry_model_state", model="m0001", state="unloaded") == 1
    assert of(figures, "registry_model_health", model="m0000", health="degraded") == 1
    assert of(figures, "registry_model_private_bytes", model="m0000") == 200 << 20
    assert of(figures, "registry_model_private_bytes", model="m0001") is None
    assert of(figures, "registry_predictions_total", model="m0000") == 7
    assert of(figures, "registry_prediction_errors_total", model="m0000") == 2
    assert of(figures, "registry_latency_seconds_total", model="m0000") == 0.5
    assert of(figures, "operations", kind="load", status="succeeded") == 1
    assert of(figures, "operations", kind="load", status="failed") is None  # over, and long ago
    assert of(figures, "operations", kind="activate", status="running") == 1
    assert of(figures, "operations", kind="optimize", status="queued") == 1
    assert of(figures, "alerts_open", kind="memory") == 1
    assert of(figures, "queue_tasks") == 0
    assert of(figures, "loaderd_up") == 1
    assert of(figures, "registry_budget_bytes") == 600 << 20


def test_what_a_silent_loaderd_held_is_unreachable_and_unmeasured(
    client: Client, scraper: User, loaderd: LoaderStatus
) -> None:
    register(1, status=Status.LOADED, health_status="healthy", private_bytes=1)
    LoaderStatus.objects.update(observed_at=timezone.now() - timedelta(minutes=1))
    figures = scrape(client, scraper)
    assert of(figures, "loaderd_up") == 0
    assert of(figures, "loaderd_heartbeat_age_seconds") >= 60
    assert of(figures, "registry_model_state", model="m0000", state="unreachable") == 1
    assert of(figures, "registry_model_private_bytes", model="m0000") is None
    assert of(figures, "registry_budget_bytes") is None


def test_before_the_first_start_it_answers_too(client: Client, scraper: User) -> None:
    assert of(scrape(client, scraper), "loaderd_up") == 0


def test_series_are_bounded_and_sums_are_whole(client: Client, scraper: User, loaderd: LoaderStatus) -> None:
    register(MOST_MODELS + 50, usage_count=3)
    register(1, status=Status.LOADED, private_bytes=5)
    figures = scrape(client, scraper)
    predictions = {key[1]: value for key, value in figures.items() if key[0] == "modelhub_registry_predictions_total"}
    assert len(predictions) == MOST_MODELS + 1
    assert sum(predictions.values()) == 3 * (MOST_MODELS + 50)
    assert of(figures, "registry_model_state", model="_other", state="unloaded") == 51
    # The loaded one is shown although nobody used it.
    assert of(figures, "registry_model_private_bytes", model=f"m{MOST_MODELS + 50:04}") == 5


def test_it_costs_the_same_for_any_number_of_models(client: Client, scraper: User, loaderd: LoaderStatus) -> None:
    client.force_login(scraper)
    counts = []
    for total in (MOST_MODELS, 2000):
        register(total)
        with CaptureQueriesContext(connection) as queries:
            assert client.get("/metrics").status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1] < 12
    assert not any("manifest" in query["sql"] for query in queries)


class TestAccess:
    def test_nobody_in_particular_is_told_how(self, client: Client) -> None:
        answer = client.get("/metrics")
        assert (answer.status_code, answer["WWW-Authenticate"]) == (401, "Token")
        assert "create_token" in answer.content.decode()

    @pytest.mark.parametrize("header", ["Token wrong", "Token", "Token a b"])
    def test_a_wrong_token_is_refused(self, client: Client, header: str) -> None:
        assert client.get("/metrics", headers={"Authorization": header}).status_code == 401

    def test_the_permission_is_needed(self, client: Client) -> None:
        _, token = ApiToken.objects.create(User.objects.create_user("ada"))
        answer = client.get("/metrics", headers={"Authorization": f"Token {token}"})
        assert answer.status_code == 403
        assert "registry.view_modelversion" in answer.content.decode()

    def test_a_session_does_and_only_reading(self, admin_client: Client) -> None:
        answer = admin_client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        assert answer["Content-Type"].startswith("application/openmetrics-text")
        assert answer.content.endswith(b"# EOF\n")
        assert admin_client.post("/metrics").status_code == 405
