"""Health and metrics of the whole system: what is asked of the database, and what follows from it."""

from __future__ import annotations

import time
from typing import Any

from django.db.models import Count, Q, Sum
from django.utils import timezone

from loaderd.states import ModelState
from modelhub.api.fields import mebibytes
from modelhub.api.measures import is_troubled, model_score
from modelhub.api.memory import budget
from modelhub.lifecycle.models import ACTIVE, Operation
from modelhub.lifecycle.observed import LoaderView, effective_status, up_to_date
from modelhub.lifecycle.wishes import LOADING_KINDS
from modelhub.registry.choices import DesiredState, Status
from modelhub.registry.models import ModelVersion
from modelhub.telemetry.models import Alert
from modelhub.telemetry.queries import summaries

# Over which the error rates of the health score are counted.
SCORE_WINDOW_SECONDS = 3600.0

_COLUMNS = (
    "model_id", "status", "desired_state", "observed_at", "health_status", "private_bytes", "gpu_bytes", "usage_count",
    "prediction_error_count",
)  # fmt: skip


def wanted_or_present() -> list[ModelVersion]:
    """The models that have a process, or should have one; the rest say nothing about health.

    A version whose activation failed is in error and nobody wishes it loaded: the one before is live as it was.
    """
    concerned = ModelVersion.objects.filter(
        ~Q(status__in=[Status.UNLOADED, Status.ERROR]) | Q(desired_state=DesiredState.LOADED)
    )
    return list(concerned.only(*_COLUMNS))


def health(loader: LoaderView) -> dict[str, Any]:
    """unhealthy: loaderd is away. degraded: a model is in error, not healthy, or missing. Else healthy.

    All figures of memory are of one moment, `loaderd.observed_at`.
    """
    versions, loader = _of_one_moment(loader)
    loaded, missing = _loaded(versions, loader), _missing(versions)
    return {
        "status": _status(versions, missing, loader),
        "active_models": len(loaded),
        **dict(zip(("total_memory_mb", "gpu_memory_mb"), _memory(loaded), strict=True)),
        "loaded_models": [
            {
                "id": version.model_id,
                "status": version.health_status,
                "memory_usage": mebibytes(version.private_bytes),
            }
            for version in loaded
        ],
        "timestamp": time.time(),
        "loaderd": loader,
        "open_alerts": _open_alerts(),
        "budget": budget(loader),
        "missing_models": sorted(version.model_id for version in missing),
    }


def metrics(loader: LoaderView) -> dict[str, Any]:
    """As health(); the formulas are in docs/api.md."""
    versions, loader = _of_one_moment(loader)
    loaded = _loaded(versions, loader)
    totals = ModelVersion.objects.aggregate(
        models=Count("pk"), loads=Sum("load_count", default=0), load_seconds=Sum("load_seconds_total", default=0.0)
    )
    memory_mb, gpu_memory_mb = _memory(loaded)
    return {
        "total_models": totals["models"],
        "loaded_models": len(loaded),
        "total_memory_usage_mb": memory_mb,
        "gpu_memory_usage_mb": gpu_memory_mb,
        "average_load_time_ms": round(totals["load_seconds"] / totals["loads"] * 1000, 3) if totals["loads"] else 0.0,
        "total_load_count": totals["loads"],
        "health_score": _health_score(versions, loader),
        "uptime_seconds": _uptime_seconds(loader),
        "models_by_type": _count_by("lineage__type"),
        "models_by_framework": _count_by("framework"),
        "open_alerts": _open_alerts(),
        "budget": budget(loader),
    }


def _open_alerts() -> int:
    return int(Alert.objects.filter(resolved_at=None).count())


def _of_one_moment(loader: LoaderView) -> tuple[list[ModelVersion], LoaderView]:
    """The models and loaderd, with what each process holds as of loader.observed_at."""
    versions = wanted_or_present()
    loader, held = up_to_date(loader)
    for version in versions:
        if version.model_id in held:
            version.private_bytes = held[version.model_id].get("private_bytes")
            version.gpu_bytes = held[version.model_id].get("gpu_bytes")
    return versions, loader


def _missing(versions: list[ModelVersion]) -> list[ModelVersion]:
    """Models that should be loaded and are not, while nobody's command is loading them: loaderd has yet to bring them
    back, after its start or their process' death. Those in error are not among them."""
    absent = [
        version
        for version in versions
        if version.desired_state == DesiredState.LOADED and version.status not in (Status.LOADED, Status.ERROR)
    ]
    if not absent:
        return []
    commands = Operation.objects.filter(
        kind__in=LOADING_KINDS, status__in=ACTIVE, version__in=[version.pk for version in absent]
    )
    commanded = set(commands.values_list("version", flat=True))
    return [version for version in absent if version.pk not in commanded]


def _status(versions: list[ModelVersion], missing: list[ModelVersion], loader: LoaderView) -> str:
    if not loader.reachable:
        return "unhealthy"
    return "degraded" if missing or any(map(is_troubled, versions)) else "healthy"


def _loaded(versions: list[ModelVersion], loader: LoaderView) -> list[ModelVersion]:
    return [version for version in versions if effective_status(version, loader) == ModelState.LOADED]


def _memory(loaded: list[ModelVersion]) -> tuple[int, int]:
    """(memory, GPU memory) in MiB: bytes are added first, so rounding counts once."""
    memory = mebibytes(sum(version.private_bytes or 0 for version in loaded))
    gpu_memory = mebibytes(sum(version.gpu_bytes or 0 for version in loaded))
    return memory or 0, gpu_memory or 0


def _health_score(versions: list[ModelVersion], loader: LoaderView) -> float:
    """Mean of the models' scores, 100 without any, 0 while loaderd is away."""
    if not loader.reachable:
        return 0.0
    seen = summaries([version.pk for version in versions], SCORE_WINDOW_SECONDS)
    missing = {version.pk for version in _missing(versions)}
    scores = [0.0 if version.pk in missing else model_score(version, seen[version.pk]) for version in versions]
    return round(sum(scores) / len(scores), 1) if scores else 100.0


def _uptime_seconds(loader: LoaderView) -> int:
    if not loader.reachable or loader.started_at is None:
        return 0
    return max(0, int((timezone.now() - loader.started_at).total_seconds()))


def _count_by(column: str) -> dict[str, int]:
    return dict(ModelVersion.objects.order_by(column).values_list(column).annotate(Count("pk")))
