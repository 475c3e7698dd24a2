"""What people decided, put together for loaderd: limits, the policy of each model, where the names of lineages lead."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from django.db.models import Q

from loaderd.rules import LineageTraffic, ModelPolicy, Rules
from modelhub.policy.effective import effective
from modelhub.registry.models import Alias, ModelVersion

_MIB = 2**20
# As the partial index `version_policy` has it, so that it is used.
_HAS_POLICY = (
    Q(pinned=True)
    | Q(autoload=True)
    | ~Q(priority=50)
    | Q(keep_alive_seconds__isnull=False)
    | Q(cache_enabled__isnull=False)
    | Q(cache_ttl_seconds__isnull=False)
)
# The fields of a model that its policy is made of, in the order of ModelPolicy's.
POLICY_FIELDS = ("pinned", "priority", "autoload", "keep_alive_seconds", "cache_enabled", "cache_ttl_seconds")


def present_rules() -> Rules:
    """The rules as they stand; three queries, however many models there are."""
    settings = effective()
    return Rules(
        max_memory_bytes=settings.MAX_MEMORY_USAGE_MB * _MIB or None,
        max_memory_percent=settings.MAX_MEMORY_USAGE_PERCENT,
        max_gpu_memory_bytes=settings.GPU_MEMORY_LIMIT_MB * _MIB or None,
        max_gpu_memory_percent=settings.GPU_MEMORY_LIMIT_PERCENT,
        unused_timeout_seconds=settings.UNUSED_MODEL_TIMEOUT_HOURS * 3600.0,
        low_usage_threshold=settings.LOW_USAGE_THRESHOLD,
        optimization_interval_seconds=settings.MEMORY_OPTIMIZATION_INTERVAL,
        min_residency_seconds=settings.MIN_RESIDENCY_SECONDS,
        max_concurrent_loads=settings.MAX_CONCURRENT_LOADS,
        max_load_attempts=settings.MAX_LOAD_ATTEMPTS,
        health_check_interval_seconds=settings.HEALTH_CHECK_INTERVAL,
        hang_seconds=settings.HANG_SECONDS,
        load_wait_seconds=settings.LOAD_WAIT_SECONDS,
        alert_load_seconds=settings.ALERT_LOAD_TIME_SECONDS,
        alert_memory_percent=settings.ALERT_MEMORY_USAGE_PERCENT,
        alert_error_rate_percent=settings.ALERT_ERROR_RATE_PERCENT,
        slow_seconds=settings.SLOW_SECONDS,
        sampling_rate=settings.SAMPLING_RATE,
        slow_request_seconds=settings.SLOW_REQUEST_SECONDS,
        log_level=settings.PERFORMANCE_LOG_LEVEL,
        cache_enabled=settings.CACHE_ENABLED,
        cache_ttl_seconds=settings.CACHE_TTL_SECONDS,
        cache_max_bytes=settings.CACHE_MAX_MB * _MIB,
        models=_policies(),
        lineages=_traffic(),
    )


_SETTINGS = {
    "max_memory_bytes": "MAX_MEMORY_USAGE_MB",
    "max_memory_percent": "MAX_MEMORY_USAGE_PERCENT",
    "max_gpu_memory_bytes": "GPU_MEMORY_LIMIT_MB",
    "max_gpu_memory_percent": "GPU_MEMORY_LIMIT_PERCENT",
    "unused_timeout_seconds": "UNUSED_MODEL_TIMEOUT_HOURS",
    "low_usage_threshold": "LOW_USAGE_THRESHOLD",
    "optimization_interval_seconds": "MEMORY_OPTIMIZATION_INTERVAL",
    "min_residency_seconds": "MIN_RESIDENCY_SECONDS",
    "max_concurrent_loads": "MAX_CONCURRENT_LOADS",
    "max_load_attempts": "MAX_LOAD_ATTEMPTS",
    "health_check_interval_seconds": "HEALTH_CHECK_INTERVAL",
    "hang_seconds": "HANG_SECONDS",
    "load_wait_seconds": "LOAD_WAIT_SECONDS",
    "alert_load_seconds": "ALERT_LOAD_TIME_SECONDS",
    "alert_memory_percent": "ALERT_MEMORY_USAGE_PERCENT",
    "alert_error_rate_percent": "ALERT_ERROR_RATE_PERCENT",
    "slow_seconds": "SLOW_SECONDS",
    "sampling_rate": "SAMPLING_RATE",
    "slow_request_seconds": "SLOW_REQUEST_SECONDS",
    "log_level": "PERFORMANCE_LOG_LEVEL",
    "cache_enabled": "CACHE_ENABLED",
    "cache_ttl_seconds": "CACHE_TTL_SECONDS",
    "cache_max_bytes": "CACHE_MAX_MB",
}


def settings_of(limits: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that present_rules() made these rules of; rules that are no setting are left out."""
    return {_SETTINGS[rule]: _setting(_SETTINGS[rule], value) for rule, value in limits.items() if rule in _SETTINGS}


def _setting(name: str, value: Any) -> Any:
    if name.endswith("_MB"):
        return 0 if value is None else value // _MIB
    return round(value / 3600.0, 9) if name == "UNUSED_MODEL_TIMEOUT_HOURS" else value


def _policies() -> dict[str, ModelPolicy]:
    rows = ModelVersion.objects.filter(_HAS_POLICY).order_by()
    return {model_id: ModelPolicy(*policy) for model_id, *policy in rows.values_list("model_id", *POLICY_FIELDS)}


def _traffic() -> dict[str, LineageTraffic]:
    """Of the lineages that have aliases."""
    aliases: defaultdict[str, dict[str, str]] = defaultdict(dict)
    splits = {}
    rows = Alias.objects.order_by().values_list(
        "lineage__name", "name", "version__model_id", "lineage__candidate_percent", "lineage__shadow"
    )
    for lineage, alias, model_id, candidate_percent, shadow in rows:
        aliases[lineage][alias] = model_id
        splits[lineage] = (candidate_percent, shadow)
    return {
        lineage: LineageTraffic(names, candidate_percent=splits[lineage][0], shadow=splits[lineage][1])
        for lineage, names in aliases.items()
    }
