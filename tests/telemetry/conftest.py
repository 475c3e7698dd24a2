"""Registered models, and reports of them as loaderd makes them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from loaderd import histogram
from modelhub.registry.models import Model, ModelVersion

MakeVersion = Callable[..., ModelVersion]


def at(unix_seconds: float) -> datetime:
    return datetime.fromtimestamp(unix_seconds, UTC)


def latencies(*seconds: float) -> list[int]:
    counts = histogram.empty()
    for value in seconds:
        counts[histogram.bucket_of(value)] += 1
    return counts


@pytest.fixture
def make_version(db: None) -> MakeVersion:
    def make(model_id: str, lineage: str = "mail", **fields: Any) -> ModelVersion:
        parent, _ = Model.objects.get_or_create(name=lineage)
        values = {"name": model_id, "path": f"topic/{model_id}", "version": model_id, "framework": "sklearn", **fields}
        return ModelVersion.objects.create(lineage=parent, model_id=model_id, **values)

    return make


@pytest.fixture
def version(make_version: MakeVersion) -> ModelVersion:
    return make_version("mail-v1")
