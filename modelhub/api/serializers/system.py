"""The answers about the whole system."""

from __future__ import annotations

from rest_framework import serializers

from modelhub.api.fields import UnixTimeField, mebibytes
from modelhub.registry.models import ModelVersion

SYSTEM_STATUSES = ["healthy", "degraded", "unhealthy"]


class LoadedModelSerializer(serializers.Serializer):
    id = serializers.CharField()
    status = serializers.CharField(help_text="Its health.")
    memory_usage = serializers.IntegerField(allow_null=True, help_text="MiB.")


class LoaderdSerializer(serializers.Serializer):
    reachable = serializers.BooleanField()
    pid = serializers.IntegerField(allow_null=True)
    observed_at = UnixTimeField(allow_null=True, help_text="When it was heard last: unreachable since then.")


class BudgetFiguresSerializer(serializers.Serializer):
    """Whole MiB that add up. All null while loaderd is away."""

    limit_mb = serializers.IntegerField(allow_null=True, help_text="Rounded down. Null: no limit.")
    used_mb = serializers.IntegerField(allow_null=True, help_text="Held by all models; rounded up.")
    reserved_mb = serializers.IntegerField(allow_null=True, help_text="Promised to loads under way; rounded up.")
    free_mb = serializers.IntegerField(allow_null=True, help_text="limit_mb - used_mb - reserved_mb.")


class BudgetSerializer(serializers.Serializer):
    memory = BudgetFiguresSerializer()
    gpu = BudgetFiguresSerializer(help_text="All null without a GPU.")


class HealthSerializer(serializers.Serializer):
    """The specification's fields, then `loaderd`, `open_alerts`, `budget` and `missing_models`."""

    status = serializers.ChoiceField(choices=SYSTEM_STATUSES)
    active_models = serializers.IntegerField()
    total_memory_mb = serializers.IntegerField(help_text="MiB.")
    gpu_memory_mb = serializers.IntegerField(help_text="MiB.")
    loaded_models = LoadedModelSerializer(many=True)
    timestamp = serializers.FloatField(help_text="Unix seconds.")
    loaderd = LoaderdSerializer()
    open_alerts = serializers.IntegerField(help_text="Not resolved, acknowledged or not.")
    budget = BudgetSerializer()
    missing_models = serializers.ListField(
        child=serializers.CharField(), help_text="Should be loaded, are not, and no command is loading them."
    )


class MetricsSerializer(serializers.Serializer):
    """The specification's fields, then `open_alerts` and `budget`."""

    total_models = serializers.IntegerField()
    loaded_models = serializers.IntegerField()
    total_memory_usage_mb = serializers.IntegerField(help_text="MiB.")
    gpu_memory_usage_mb = serializers.IntegerField(help_text="MiB.")
    average_load_time_ms = serializers.FloatField()
    total_load_count = serializers.IntegerField()
    health_score = serializers.FloatField(help_text="0 to 100.")
    uptime_seconds = serializers.IntegerField(help_text="Of loaderd; 0 while it is away.")
    models_by_type = serializers.DictField(child=serializers.IntegerField())
    models_by_framework = serializers.DictField(child=serializers.IntegerField())
    open_alerts = serializers.IntegerField(help_text="Not resolved, acknowledged or not.")
    budget = BudgetSerializer()


class UnloadedByOptimizeSerializer(serializers.Serializer):
    model_id = serializers.CharField()
    promised_bytes = serializers.IntegerField(allow_null=True, help_text="What was expected to come back.")
    freed_bytes = serializers.IntegerField(allow_null=True, help_text="What came back, measured.")
    reason = serializers.CharField()


class OptimizedSerializer(serializers.Serializer):
    """The specification's fields, then what was unloaded and why."""

    status = serializers.ChoiceField(choices=["completed"])
    memory_freed_mb = serializers.IntegerField(help_text="MiB, measured.")
    models_unloaded = serializers.IntegerField()
    optimization_time_ms = serializers.IntegerField()
    unloaded = UnloadedByOptimizeSerializer(many=True)


class UnusedQuerySerializer(serializers.Serializer):
    hours = serializers.FloatField(
        required=False, min_value=0, max_value=87_600, help_text="Default: UNUSED_MODEL_TIMEOUT_HOURS."
    )


class UnusedSerializer(serializers.Serializer):
    id = serializers.CharField(source="model_id")
    name = serializers.CharField()
    last_used = UnixTimeField(source="last_used_at", allow_null=True, help_text="Null: never.")
    last_loaded = UnixTimeField(source="last_loaded_at", allow_null=True)
    memory_usage_mb = serializers.SerializerMethodField(help_text="MiB.")
    pinned = serializers.BooleanField()

    def get_memory_usage_mb(self, version: ModelVersion) -> int | None:
        return mebibytes(version.private_bytes)
