"""What is computed from a model's counters; docs/api.md states the same formulas. No queries.

summary: telemetry's of a window, None where only the counters over all time count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelhub.registry.choices import HealthStatus, Status
from modelhub.registry.models import ModelVersion

Summary = Mapping[str, Any]


def memory_efficiency(version: ModelVersion) -> float | None:
    """Share of the held memory that the artifact itself explains: size / (private + GPU bytes), at most 1.

    None when nothing is held. A mapped artifact is shared with the page cache, hence the cap.
    """
    held_bytes = (version.private_bytes or 0) + (version.gpu_bytes or 0)
    return round(min(version.size_bytes / held_bytes, 1.0), 4) if held_bytes else None


def performance_metrics(version: ModelVersion, summary: Summary | None = None) -> dict[str, Any]:
    """What metadata.json states, with what was measured here in place of the stated latency and throughput.

    Of the window when anything was asked in it: latency_ms is the mean, throughput items per second of computing.
    Else over all time: throughput is items per second of latency, and there are no quantiles.
    """
    metrics = dict(version.performance_metrics)
    if summary is not None and summary["requests"]:
        latency = summary["latency_ms"]
        metrics["latency_ms"] = latency["mean"]
        metrics.update({f"latency_{share}_ms": latency[share] for share in ("p50", "p95", "p99")})
        metrics["throughput"] = None if summary["throughput"] is None else round(summary["throughput"], 1)
    elif version.average_latency_seconds:
        metrics["latency_ms"] = round(version.average_latency_seconds * 1000, 3)
        metrics["throughput"] = round(version.item_count / version.latency_seconds_total, 1)
    return metrics


def error_rate(version: ModelVersion, summary: Summary | None = None) -> float:
    """Share of the predictions that failed: of the window when anything was asked in it, else over all time."""
    if summary is not None and summary["requests"]:
        return round(summary["error_rate"], 6)
    return version.error_rate


def model_score(version: ModelVersion, summary: Summary | None = None) -> float:
    """0 to 100 for one model that is loaded or should be: 0 when it cannot answer, else by its error rate."""
    if version.status == Status.ERROR or version.health_status == HealthStatus.UNHEALTHY:
        return 0.0
    score = 100.0 * (1.0 - error_rate(version, summary))
    return score / 2 if version.health_status == HealthStatus.DEGRADED else score


def is_troubled(version: ModelVersion) -> bool:
    return version.status == Status.ERROR or version.health_status in (HealthStatus.UNHEALTHY, HealthStatus.DEGRADED)
