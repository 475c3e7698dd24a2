"""Inside a running product: fills its registry with rows like real ones, and measures pages without the network.

Called through `manage.py shell`, see `tests.performance.console`.
"""

from __future__ import annotations

import gc
import json
import random
import statistics
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

VERSIONS_A_LINEAGE = 5
ROUNDS = 7
DAY_SECONDS = 86_400
TYPES = ("sentiment", "topic", "intent", "other")


def fill(count: int) -> None:
    """Registers `count` models more, in lineages of five, with the history of a house that has run for a while:
    an operation and two moves a model, and a day of samples of every loaded model."""
    from django.utils import timezone

    from modelhub.lifecycle.models import Operation, StateChange
    from modelhub.registry.models import Alias, Model, ModelVersion
    from modelhub.telemetry.models import Sample

    chance, now = random.Random(0), timezone.now()
    lineages = Model.objects.bulk_create(
        Model(name=f"{TYPES[number % len(TYPES)]}-of-mail-{number:04d}", type=TYPES[number % len(TYPES)])
        for number in range(count // VERSIONS_A_LINEAGE)
    )
    versions = ModelVersion.objects.bulk_create(
        (
            ModelVersion(**_version(lineage, number, now - timedelta(days=chance.randint(0, 400)), chance))
            for lineage in lineages
            for number in range(1, VERSIONS_A_LINEAGE + 1)
        ),
        batch_size=500,
    )
    Alias.objects.bulk_create(
        (
            Alias(lineage=version.lineage, name="live", version=version, set_by="ada")
            for version in versions
            if version.version == f"{VERSIONS_A_LINEAGE}.0"
        ),
        batch_size=1000,
    )
    Operation.objects.bulk_create(
        (
            Operation(
                kind=chance.choice(("load", "unload", "activate")),
                version=version,
                status="succeeded" if chance.random() < 0.95 else "failed",
                requested_by_name="olaf",
                source="admin",
                requested_at=now - timedelta(days=chance.random() * 90),
                finished_at=now,
            )
            for version in versions
        ),
        batch_size=2000,
    )
    moves = (("unloaded", "loading"), ("loading", "loaded"))
    StateChange.objects.bulk_create(
        (
            StateChange(
                version=version,
                from_state=begin,
                to_state=end,
                reason="asked for in the admin",
                actor="olaf",
                at=now - timedelta(days=1 + chance.random() * 90),
            )
            for version in versions
            for begin, end in moves
        ),
        batch_size=2000,
    )
    Sample.objects.bulk_create(
        (
            Sample(
                version=version,
                at=now.replace(second=0, microsecond=0) - timedelta(seconds=at),
                seconds=600,
                requests=120,
                items=140,
                latency_seconds=0.6,
                compute_seconds=0.4,
                histogram=_histogram(),
                private_bytes=14 << 20,
            )
            for version in ModelVersion.objects.filter(status="loaded")
            for at in range(3600, DAY_SECONDS, 600)
        ),
        batch_size=2000,
    )
    _analyze()
    print(json.dumps(ModelVersion.objects.count()))


def measure(paths: Sequence[str]) -> None:
    """Prints {path: [queries, milliseconds]} as JSON: of an admin's request, nothing kept from an earlier one."""
    from django.contrib.auth.models import User
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    from modelhub.console.live import Shared

    client = Client(headers={"host": "127.0.0.1"})
    client.force_login(User.objects.filter(is_superuser=True).first())
    shared = [found for found in gc.get_objects() if isinstance(found, Shared)]
    found: dict[str, list[float]] = {}
    for path in paths:
        seconds, queries = [], 0
        for _ in range(ROUNDS + 1):
            for kept in shared:
                kept.forget()
            with CaptureQueriesContext(connection) as asked:
                began = time.perf_counter()
                response = client.get(path)
                seconds.append(time.perf_counter() - began)
            assert response.status_code == 200, f"{path}: {response.status_code}"
            queries = len(asked)
        found[path] = [queries, statistics.median(seconds[1:]) * 1e3]  # the first also compiles the templates
    print(json.dumps(found))


def keys() -> None:
    """Prints {model_id: pk} of the loaded models as JSON."""
    from modelhub.registry.models import ModelVersion

    print(json.dumps(dict(ModelVersion.objects.filter(status="loaded").values_list("model_id", "pk"))))


def _version(lineage: Any, number: int, seen: Any, chance: random.Random) -> dict[str, Any]:
    model_id = f"{lineage.name}-v{number}.0"
    labels = ["negative", "neutral", "positive"]
    digest = f"{chance.getrandbits(256):064x}"
    names = ("config.json", "metadata.json", "model.skops")
    return {
        "lineage": lineage,
        "model_id": model_id,
        "name": f"Mail, {lineage.name}",
        "version": f"{number}.0",
        "path": f"{lineage.type}/{model_id}",
        "framework": chance.choice(["sklearn", "transformers", "tensorflow"]),
        "artifact_format": "skops",
        "size_bytes": chance.randint(100_000, 500_000_000),
        "digest": digest,
        "manifest": [
            {"path": name, "size_bytes": 1000, "mtime_ns": 1, "ctime_ns": 1, "sha256": digest} for name in names
        ],
        "metadata": {"name": "Mail", "labels": labels, "description": "Tone of an email. " * 20},
        "performance_metrics": {"accuracy": round(chance.uniform(0.6, 0.99), 4)},
        "signature": {
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]}],
            "labels": labels,
            "sample_input": ["Where is my parcel? " * 20],
        },
        "created_at": seen,
        "discovered_at": seen,
        "load_count": chance.randint(0, 40),
        "load_seconds_total": 4.0,
        "usage_count": chance.randint(0, 100_000),
        "last_used_at": seen,
        "measured_peak_bytes": 20 << 20,
        "measured_digest": digest,
    }


def _histogram() -> list[int]:
    from loaderd import histogram

    counts = histogram.empty()
    for milliseconds in (3, 4, 5, 8, 30):
        counts[histogram.bucket_of(milliseconds / 1e3)] += 24
    return counts


def _analyze() -> None:
    """As autovacuum does within minutes: the planner knows the tables."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
