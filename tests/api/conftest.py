"""A registry, users, and a loaderd that only exists as the rows that its reporter would write."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection, transaction
from django.db.models.signals import post_save
from django.utils import timezone
from rest_framework.test import APIClient

from modelhub.accounts.models import ApiToken
from modelhub.conf import Config
from modelhub.lifecycle.models import LoaderStatus, Operation, OperationStatus
from modelhub.lifecycle.notifications import OPERATION_CHANNEL, notify, stop_listening
from modelhub.registry.choices import Status
from modelhub.registry.models import Alias, Model, ModelVersion
from modelhub.telemetry.models import Alert
from tests.lifecycle.fake_loaderd import FakeLoaderd as ControlSocket

MakeVersion = Callable[..., ModelVersion]
As = Callable[[str], APIClient]


@pytest.fixture(scope="session", autouse=True)
def _listening_ends_before_the_database(django_db_setup: None) -> Iterator[None]:
    yield
    stop_listening()


@pytest.fixture
def make_version(db: None) -> MakeVersion:
    def make(model_id: str = "sentiment-model-v1", type: str = "sentiment", **fields: Any) -> ModelVersion:  # noqa: A002
        lineage, _ = Model.objects.get_or_create(name=fields.pop("lineage", model_id), defaults={"type": type})
        values = {
            "name": "Sentiment Analysis Model",
            "version": "1.0.0",
            "path": f"{type}/{model_id}",
            "framework": "sklearn",
            "artifact_format": "skops",
            "digest": "a" * 64,
            "size_bytes": 52_428_800,
        }
        return ModelVersion.objects.create(lineage=lineage, model_id=model_id, **{**values, **fields})

    return make


@pytest.fixture
def loaded(make_version: MakeVersion, loaderd_is_heard: LoaderStatus) -> ModelVersion:
    """A model as its row looks while it is loaded and used."""
    now = timezone.now()
    return make_version(
        status=Status.LOADED,
        desired_state="loaded",
        pid=4711,
        started_at=now,
        phase="serving",
        observed_at=now,
        private_bytes=256 * 1024**2 - 5,
        gpu_bytes=128 * 1024**2,
        loaded_digest="a" * 64,
        signature={"inputs": [], "outputs": [], "labels": ["negative", "positive"], "sample_input": {}},
        performance_metrics={"accuracy": 0.92, "latency_ms": 45},
        health_status="healthy",
        last_health_check_at=now,
        last_loaded_at=now,
        load_count=4,
        load_seconds_total=2.0,
        usage_count=1000,
        item_count=4000,
        latency_seconds_total=2.0,
        prediction_error_count=10,
        error_count=11,
    )


@pytest.fixture
def loaderd_is_heard(db: None) -> LoaderStatus:
    now = timezone.now()
    heard = now + timedelta(seconds=20)  # a slow test machine shall not make it silent
    # What the reporter writes of the daemon's heartbeat.
    facts = {"budget": {"budget_bytes": 600 * 2**20, "used_bytes": 256 * 2**20, "reserved_bytes": 100 * 2**20}}
    began = now - timedelta(hours=1)
    return LoaderStatus.objects.create(pid=99, boot_id="b", started_at=began, observed_at=heard, facts=facts)


@pytest.fixture
def loaderd_is_silent(loaderd_is_heard: LoaderStatus) -> None:
    LoaderStatus.objects.update(observed_at=timezone.now() - timedelta(minutes=1))


@pytest.fixture
def open_alert(db: None) -> Alert:
    now = timezone.now()
    return Alert.objects.create(key="memory", kind="memory", message="Full.", opened_at=now, last_seen_at=now)


@pytest.fixture
def as_(db: None) -> As:
    """A client of the user of that kind, with a token: viewer, operator or admin; anonymous has none."""

    def client(kind: str) -> APIClient:
        api = APIClient()
        if kind == "anonymous":
            return api
        user, is_new = User.objects.get_or_create(username=kind, defaults={"is_superuser": kind == "admin"})
        if is_new and kind != "admin":
            user.groups.add(Group.objects.get(name=f"{kind}s"))
        _, token = ApiToken.objects.create(user)
        api.credentials(HTTP_AUTHORIZATION=f"Token {token}")
        return api

    return client


@pytest.fixture
def api(as_: As) -> APIClient:
    return as_("admin")


class FakeLoaderd:
    """Ends each queued operation, on a thread of its own, as `result` or `error` say; leaves it when both are None."""

    def __init__(self) -> None:
        self.result: dict[str, Any] | None = None
        self.error: dict[str, Any] | None = None
        self.seen: list[Operation] = []

    def saved(self, instance: Operation, created: bool, **kwargs: Any) -> None:
        if created and instance.status == OperationStatus.QUEUED:
            self.seen.append(instance)
            if self.result is not None or self.error is not None:
                transaction.on_commit(lambda: threading.Thread(target=self._end, args=[instance]).start())

    def _end(self, operation: Operation) -> None:
        values: dict[str, Any] = {"status": OperationStatus.FAILED, "error": self.error}
        if self.error is None:
            values = {"status": OperationStatus.SUCCEEDED, "result": self.result}
        with transaction.atomic():
            Operation.objects.filter(pk=operation.pk).update(finished_at=timezone.now(), **values)
            notify(OPERATION_CHANNEL, str(operation.pk))
        connection.close()


@pytest.fixture
def loaderd(transactional_db: None, loaderd_is_heard: LoaderStatus) -> Iterator[FakeLoaderd]:
    fake = FakeLoaderd()
    post_save.connect(fake.saved, sender=Operation)
    yield fake
    post_save.disconnect(fake.saved, sender=Operation)


@pytest.fixture
def planner(loaderd_is_heard: LoaderStatus, monkeypatch: pytest.MonkeyPatch) -> Iterator[ControlSocket]:
    """A control socket of its own that answers dry runs with its `plan`."""
    with tempfile.TemporaryDirectory(prefix="mh-control-") as folder:
        path = Path(folder) / "control.sock"
        monkeypatch.setattr(Config, "control_socket", property(lambda _: path))
        fake = ControlSocket(path)
        yield fake
        fake.close()


@pytest.fixture
def lineage(make_version: MakeVersion) -> Model:
    """`sentiment` with three versions: v2 is live, v10 the candidate."""
    made = [
        make_version(f"sentiment-{version}", lineage="sentiment", version=f"{version[1:]}.0.0")
        for version in ("v1", "v2", "v10")
    ]
    lineage = made[0].lineage
    Alias.objects.create(lineage=lineage, name="live", version=made[1], set_by="ada")
    Alias.objects.create(lineage=lineage, name="candidate", version=made[2], set_by="ada")
    return lineage
