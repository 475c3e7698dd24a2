"""How a model performs: the specification's figures, then those of a window, and their course."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from modelhub.api import measures
from modelhub.api.fields import UnixTimeField
from modelhub.api.serializers.observed import EffectiveStatus
from modelhub.registry.models import ModelVersion


class LatencySerializer(serializers.Serializer):
    """Milliseconds; null without a prediction."""

    mean = serializers.FloatField(allow_null=True)
    p50 = serializers.FloatField(allow_null=True)
    p95 = serializers.FloatField(allow_null=True)
    p99 = serializers.FloatField(allow_null=True)


class WindowSerializer(serializers.Serializer):
    """What was counted in the window; zeros and null for a model that was not loaded in it."""

    window_seconds = serializers.IntegerField()
    requests = serializers.IntegerField()
    items = serializers.IntegerField()
    errors = serializers.IntegerField()
    error_rate = serializers.FloatField(help_text="errors / requests.")
    requests_per_second = serializers.FloatField(help_text="requests / window_seconds.")
    throughput = serializers.FloatField(allow_null=True, help_text="items / seconds of computing.")
    latency_ms = LatencySerializer()
    cache_hits = serializers.IntegerField(help_text="Answered without the model; not among the requests.")
    cache_misses = serializers.IntegerField(help_text="Computed although its answers are kept.")
    cache_hit_rate = serializers.FloatField(allow_null=True, help_text="hits / (hits + misses); null without both.")
    max_queued = serializers.IntegerField()
    max_in_flight = serializers.IntegerField()
    private_bytes_max = serializers.IntegerField(allow_null=True)
    gpu_bytes_max = serializers.IntegerField(allow_null=True)
    loaded_seconds = serializers.FloatField(help_text="Of the window, in which it was loaded.")


class MeasuredPerformanceSerializer(serializers.Serializer):
    """What metadata.json states, the keys below measured here; any other key is metadata.json's."""

    accuracy = serializers.FloatField(required=False)
    latency_ms = serializers.FloatField(required=False)
    latency_p50_ms = serializers.FloatField(required=False)
    latency_p95_ms = serializers.FloatField(required=False)
    latency_p99_ms = serializers.FloatField(required=False)
    throughput = serializers.FloatField(required=False, allow_null=True)


class PerformanceSerializer(EffectiveStatus):
    """The specification's fields, then `window`. Needs context["summary"], telemetry's of the window."""

    model_id = serializers.CharField()
    load_count = serializers.IntegerField()
    usage_count = serializers.IntegerField()
    average_load_time = serializers.FloatField(source="average_load_seconds", help_text="Seconds.")
    performance_metrics = serializers.SerializerMethodField()
    memory_efficiency = serializers.SerializerMethodField(help_text="0 to 1; null when not loaded.")
    error_rate = serializers.SerializerMethodField(help_text="Share of predictions that failed, 0 to 1.")
    window = serializers.SerializerMethodField()

    @extend_schema_field(MeasuredPerformanceSerializer)
    def get_performance_metrics(self, version: ModelVersion) -> dict[str, Any]:
        return measures.performance_metrics(version, self.context["summary"])

    def get_memory_efficiency(self, version: ModelVersion) -> float | None:
        return measures.memory_efficiency(version) if self.get_loaded(version) else None

    def get_error_rate(self, version: ModelVersion) -> float:
        return measures.error_rate(version, self.context["summary"])

    @extend_schema_field(WindowSerializer)
    def get_window(self, version: ModelVersion) -> dict[str, Any]:
        return dict(WindowSerializer(self.context["summary"]).data)


class SampleSerializer(serializers.Serializer):
    """A step of the course: sums of what was asked in it, the highest of what was held and queued.

    Bytes are null in a step without a sample: the model was not loaded, or loaderd was away.
    """

    at = UnixTimeField(help_text="Its end.")
    seconds = serializers.IntegerField(help_text="Its length.")
    requests = serializers.IntegerField()
    items = serializers.IntegerField()
    errors = serializers.IntegerField()
    error_rate = serializers.FloatField()
    requests_per_second = serializers.FloatField()
    latency_ms = LatencySerializer()
    queued = serializers.IntegerField()
    in_flight = serializers.IntegerField()
    private_bytes = serializers.IntegerField(allow_null=True)
    gpu_bytes = serializers.IntegerField(allow_null=True)


class HostSampleSerializer(SampleSerializer):
    """Of all models together."""

    reserved_bytes = serializers.IntegerField(allow_null=True, help_text="Promised to loads under way.")
    budget_bytes = serializers.IntegerField(allow_null=True, help_text="The limit in force.")
    available_bytes = serializers.IntegerField(allow_null=True, help_text="What the machine had left; the lowest.")
