"""The answers about the whole system."""

from __future__ import annotations

from rest_framework import serializers

from modelhub.api.fields import UnixTimeField

SYSTEM_STATUSES = ["healthy", "degraded", "unhealthy"]


class LoadedModelSerializer(serializers.Serializer):
    id = serializers.CharField()
    status = serializers.CharField(help_text="Its health.")
    memory_usage = serializers.IntegerField(allow_null=True, help_text="MiB.")


class LoaderdSerializer(serializers.Serializer):
    reachable = serializers.BooleanField()
    pid = serializers.IntegerField(allow_null=True)
    observed_at = UnixTimeField(allow_null=True)


class HealthSerializer(serializers.Serializer):
    """The specification's fields, and `loaderd`."""

    status = serializers.ChoiceField(choices=SYSTEM_STATUSES)
    active_models = serializers.IntegerField()
    total_memory_mb = serializers.IntegerField(help_text="MiB.")
    gpu_memory_mb = serializers.IntegerField(help_text="MiB.")
    loaded_models = LoadedModelSerializer(many=True)
    timestamp = serializers.FloatField(help_text="Unix seconds.")
    loaderd = LoaderdSerializer()


class MetricsSerializer(serializers.Serializer):
    """Exactly the specification's fields."""

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


class OptimizedSerializer(serializers.Serializer):
    """Exactly the specification's fields."""

    status = serializers.ChoiceField(choices=["completed", "incomplete"])
    memory_freed_mb = serializers.IntegerField(help_text="MiB, measured.")
    models_unloaded = serializers.IntegerField()
    optimization_time_ms = serializers.IntegerField()
