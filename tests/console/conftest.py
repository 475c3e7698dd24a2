"""People who look at the console, and what they see: models, a loaderd that was heard a moment ago."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone

from modelhub.console.dashboard.snapshot import dashboard
from modelhub.console.site import counts
from modelhub.lifecycle.models import LoaderStatus
from modelhub.registry.choices import HealthStatus, Status
from modelhub.registry.models import Model, ModelVersion

MakeVersion = Callable[..., ModelVersion]
MIB = 1 << 20


@pytest.fixture(autouse=True)
def _nothing_is_kept_between_tests() -> None:
    dashboard.forget()
    counts.forget()


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def admin(db: None) -> Client:
    return client_of(User.objects.create_superuser("ada", password="x"))


@pytest.fixture
def viewer(db: None) -> Client:
    user = User.objects.create_user("vera", password="x", is_staff=True)
    user.groups.add(Group.objects.get(name="viewers"))
    return client_of(user)


@pytest.fixture
def operator(db: None) -> Client:
    user = User.objects.create_user("olaf", password="x", is_staff=True)
    user.groups.add(Group.objects.get(name="operators"))
    return client_of(user)


@pytest.fixture
def loaderd(db: None) -> LoaderStatus:
    """Heard a moment ago: 600 MiB for models on a machine of 4 GiB, no GPU."""
    now = timezone.now()
    return LoaderStatus.objects.create(
        pk=1,
        pid=4711,
        started_at=now - timedelta(hours=2),
        observed_at=now,
        facts={
            "budget": {"budget_bytes": 600 * MIB, "used_bytes": 0, "reserved_bytes": 0},
            "memory": {"total_bytes": 4096 * MIB, "available_bytes": 3000 * MIB},
            "host": {"cpu_count": 2},
            "python": "3.11.2",
            "gpus": [],
        },
    )


@pytest.fixture
def make_version(db: None) -> MakeVersion:
    def make(model_id: str = "mail-v1", **fields: Any) -> ModelVersion:
        lineage, _ = Model.objects.get_or_create(name=fields.pop("lineage", "mail"))
        values = {
            "name": model_id,
            "version": model_id,
            "path": f"topic/{model_id}",
            "framework": "sklearn",
            "artifact_format": "skops",
            "digest": "a" * 64,
        }
        return ModelVersion.objects.create(lineage=lineage, model_id=model_id, **{**values, **fields})

    return make


@pytest.fixture
def make_loaded(make_version: MakeVersion) -> MakeVersion:
    def make(model_id: str = "mail-v1", **fields: Any) -> ModelVersion:
        values = {
            "status": Status.LOADED,
            "health_status": HealthStatus.HEALTHY,
            "pid": 99,
            "private_bytes": 14 * MIB,
            "loaded_digest": "a" * 64,
        }
        return make_version(model_id, **{**values, **fields})

    return make
