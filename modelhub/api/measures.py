"""What is computed from a model's counters; docs/api.md states the same formulas. No queries."""

from __future__ import annotations

from typing import Any

from modelhub.registry.choices import HealthStatus, Status
from modelhub.registry.models import ModelVersion


def memory_efficiency(version: ModelVersion) -> float | None:
    """Share of the held memory that the artifact itself explains: size / (private + GPU bytes), at most 1.

    None when nothing is held. A mapped artifact is shared with the page cache, hence the cap.
    """
    held_bytes = (version.private_bytes or 0) + (version.gpu_bytes or 0)
    return round(min(version.size_bytes / held_bytes, 1.0), 4) if held_bytes else None


def performance_metrics(version: ModelVersion) -> dict[str, Any]:
    """What metadata.json states, with what was measured here in place of the stated latency and throughput.

    latency_ms: mean over all answered predictions. throughput: items per second of latency.
    """
    metrics = dict(version.performance_metrics)
    latency_seconds = version.average_latency_seconds
    if latency_seconds:
        metrics["latency_ms"] = round(latency_seconds * 1000, 3)
        metrics["throughput"] = round(version.item_count / version.latency_seconds_total, 1)
    return metrics


def model_score(version: ModelVersion) -> float:
    """0 to 100 for one model that is loaded or should be: 0 when it cannot answer, else by its error rate."""
    if version.status == Status.ERROR or version.health_status == HealthStatus.UNHEALTHY:
        return 0.0
    score = 100.0 * (1.0 - version.error_rate)
    return score / 2 if version.health_status == HealthStatus.DEGRADED else score


def is_troubled(version: ModelVersion) -> bool:
    return version.status == Status.ERROR or version.health_status in (HealthStatus.UNHEALTHY, HealthStatus.DEGRADED)
