"""One record that overrides settings of the environment, and who changed what in it when."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q

from modelhub.conf import Config

OVERRIDABLE = (
    "MAX_MEMORY_USAGE_MB",
    "MAX_MEMORY_USAGE_PERCENT",
    "GPU_MEMORY_LIMIT_MB",
    "GPU_MEMORY_LIMIT_PERCENT",
    "MEMORY_OPTIMIZATION_INTERVAL",
    "UNUSED_MODEL_TIMEOUT_HOURS",
    "LOW_USAGE_THRESHOLD",
    "MIN_RESIDENCY_SECONDS",
    "LOAD_WAIT_SECONDS",
    "MAX_CONCURRENT_LOADS",
    "MODEL_TIMEOUT_SECONDS",
    "MAX_LOAD_ATTEMPTS",
    "HEALTH_CHECK_INTERVAL",
    "HANG_SECONDS",
    "SLOW_SECONDS",
    "CACHE_ENABLED",
    "CACHE_TTL_SECONDS",
    "CACHE_MAX_MB",
    "METRICS_RETENTION_DAYS",
    "SAMPLING_RATE",
    "SLOW_REQUEST_SECONDS",
    "ALERT_LOAD_TIME_SECONDS",
    "ALERT_MEMORY_USAGE_PERCENT",
    "ALERT_ERROR_RATE_PERCENT",
    "PERFORMANCE_LOG_LEVEL",
)


def _text_of(name: str) -> str:
    return f"{Config.model_fields[name].description} Empty: as the environment says."


def _number(name: str) -> Any:
    return models.FloatField(null=True, blank=True, validators=[MinValueValidator(0)], help_text=_text_of(name))


def _count(name: str) -> Any:
    return models.PositiveIntegerField(null=True, blank=True, help_text=_text_of(name))


def _switch(name: str) -> Any:
    return models.BooleanField(null=True, blank=True, help_text=_text_of(name))


class Policy(models.Model):
    """One row. A field that is empty leaves the environment's value in force; see `modelhub.policy.effective`."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    max_memory_usage_mb = _count("MAX_MEMORY_USAGE_MB")
    max_memory_usage_percent = _number("MAX_MEMORY_USAGE_PERCENT")
    gpu_memory_limit_mb = _count("GPU_MEMORY_LIMIT_MB")
    gpu_memory_limit_percent = _number("GPU_MEMORY_LIMIT_PERCENT")
    memory_optimization_interval = _number("MEMORY_OPTIMIZATION_INTERVAL")
    unused_model_timeout_hours = _number("UNUSED_MODEL_TIMEOUT_HOURS")
    low_usage_threshold = _number("LOW_USAGE_THRESHOLD")
    min_residency_seconds = _number("MIN_RESIDENCY_SECONDS")
    load_wait_seconds = _number("LOAD_WAIT_SECONDS")
    max_concurrent_loads = _count("MAX_CONCURRENT_LOADS")
    model_timeout_seconds = _number("MODEL_TIMEOUT_SECONDS")
    max_load_attempts = _count("MAX_LOAD_ATTEMPTS")
    health_check_interval = _number("HEALTH_CHECK_INTERVAL")
    hang_seconds = _number("HANG_SECONDS")
    slow_seconds = _number("SLOW_SECONDS")
    cache_enabled = _switch("CACHE_ENABLED")
    cache_ttl_seconds = _number("CACHE_TTL_SECONDS")
    cache_max_mb = _count("CACHE_MAX_MB")
    metrics_retention_days = _count("METRICS_RETENTION_DAYS")
    sampling_rate = _number("SAMPLING_RATE")
    slow_request_seconds = _number("SLOW_REQUEST_SECONDS")
    alert_load_time_seconds = _number("ALERT_LOAD_TIME_SECONDS")
    alert_memory_usage_percent = _number("ALERT_MEMORY_USAGE_PERCENT")
    alert_error_rate_percent = _number("ALERT_ERROR_RATE_PERCENT")
    performance_log_level = models.CharField(
        max_length=16,
        blank=True,
        choices=[(level, level) for level in ("DEBUG", "INFO", "WARNING", "ERROR")],
        help_text=_text_of("PERFORMANCE_LOG_LEVEL"),
    )
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name = "policy"
        verbose_name_plural = "policy"
        constraints = [models.CheckConstraint(condition=Q(id=1), name="policy_one_row")]

    def __str__(self) -> str:
        return "Policy"

    def overrides(self) -> dict[str, Any]:
        """Setting -> value, of the fields that are not empty."""
        values = {name: getattr(self, name.lower()) for name in OVERRIDABLE}
        return {name: value for name, value in values.items() if value not in (None, "")}

    def clean(self) -> None:
        """Raises ValidationError, by field, for what the setting itself would refuse."""
        from modelhub.policy.effective import problems

        wrong = problems(self.overrides())
        if wrong:
            raise ValidationError({name.lower(): message for name, message in wrong.items()})


class PolicyChange(models.Model):
    """One change of one setting: never changed, never deleted."""

    setting = models.CharField(max_length=64)
    before = models.CharField(max_length=100, blank=True, help_text="Empty: as the environment said.")
    after = models.CharField(max_length=100, blank=True, help_text="Empty: as the environment says.")
    actor = models.CharField(max_length=150)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-at", "-id"]

    def __str__(self) -> str:
        return f"{self.setting}: {self.before or 'environment'} -> {self.after or 'environment'}"
