"""How a model is told: in the list, in detail, its policy, its history."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.reverse import reverse

from loaderd.states import ModelState
from modelhub.api import measures
from modelhub.api.fields import UnixTimeField, mebibytes
from modelhub.lifecycle.models import StateChange
from modelhub.lifecycle.observed import effective_status, known
from modelhub.registry.choices import DesiredState, HealthStatus, ModelType
from modelhub.registry.models import ModelVersion

EFFECTIVE_STATUSES = [*(state.value for state in ModelState), "unreachable"]


class EffectiveStatus(serializers.Serializer):
    """What depends on whether loaderd is heard: a silent one never shows as a stale `loaded`.

    Needs context["loader"], the loader_view() of this request.
    """

    @extend_schema_field(serializers.ChoiceField(choices=EFFECTIVE_STATUSES))
    def get_status(self, version: ModelVersion) -> str:
        return str(effective_status(version, self.context["loader"]))

    def get_loaded(self, version: ModelVersion) -> bool:
        return self.get_status(version) == ModelState.LOADED

    @extend_schema_field(serializers.ChoiceField(choices=HealthStatus.choices))
    def get_health_status(self, version: ModelVersion) -> str:
        return str(known(version.health_status, self.get_status(version)) or HealthStatus.UNKNOWN)


class ModelSummarySerializer(EffectiveStatus):
    """An entry of the list: exactly the specification's fields."""

    id = serializers.CharField(source="model_id")
    name = serializers.CharField()
    type = serializers.ChoiceField(source="lineage.type", choices=ModelType.choices)
    version = serializers.CharField()
    status = serializers.SerializerMethodField()
    framework = serializers.CharField()
    loaded = serializers.SerializerMethodField()
    memory_usage = serializers.SerializerMethodField(help_text="MiB; null when not loaded.")
    gpu_memory_usage = serializers.SerializerMethodField(help_text="MiB; null when not loaded or without a GPU.")
    load_count = serializers.IntegerField()
    usage_count = serializers.IntegerField()
    health_status = serializers.SerializerMethodField()

    class Meta:
        # What the fields above read; the rest, JSON of any size among it, stays in the database.
        columns = (
            "model_id", "name", "lineage__type", "version", "framework", "status", "private_bytes", "gpu_bytes",
            "load_count", "usage_count", "health_status", "observed_at",
        )  # fmt: skip

    def get_memory_usage(self, version: ModelVersion) -> int | None:
        return self._of_loaded(version, version.private_bytes)

    def get_gpu_memory_usage(self, version: ModelVersion) -> int | None:
        return self._of_loaded(version, version.gpu_bytes)

    def _of_loaded(self, version: ModelVersion, size_bytes: int | None) -> int | None:
        wanted = self.context["include_loaded"] and self.get_loaded(version)
        return mebibytes(size_bytes) if wanted else None


class RuntimeSerializer(serializers.Serializer):
    pid = serializers.IntegerField(allow_null=True)
    started_at = UnixTimeField(allow_null=True)
    phase = serializers.CharField()
    private_bytes = serializers.IntegerField(allow_null=True, help_text="What comes back when it is unloaded.")
    gpu_bytes = serializers.IntegerField(allow_null=True)


class LinksSerializer(serializers.Serializer):
    self = serializers.CharField()
    load = serializers.CharField()
    unload = serializers.CharField()
    predict = serializers.CharField()
    performance = serializers.CharField()
    state_changes = serializers.CharField()
    operations = serializers.CharField()


class ModelDetailSerializer(EffectiveStatus):
    """The specification's detail, then what it does not have: observed state, policy, approval."""

    id = serializers.CharField(source="model_id")
    name = serializers.CharField()
    type = serializers.ChoiceField(source="lineage.type", choices=ModelType.choices)
    version = serializers.CharField()
    path = serializers.SerializerMethodField(help_text="Directory of the artifact.")
    framework = serializers.CharField()
    size_bytes = serializers.IntegerField()
    created_at = UnixTimeField()
    last_loaded = UnixTimeField(source="last_loaded_at", allow_null=True)
    load_count = serializers.IntegerField()
    usage_count = serializers.IntegerField()
    average_load_time = serializers.FloatField(source="average_load_seconds", help_text="Seconds.")
    performance_metrics = serializers.SerializerMethodField()
    health_status = serializers.SerializerMethodField()
    memory_usage_mb = serializers.SerializerMethodField(help_text="MiB; null when not loaded.")
    gpu_memory_usage_mb = serializers.SerializerMethodField(help_text="MiB; null when not loaded or without a GPU.")
    last_health_check = UnixTimeField(source="last_health_check_at", allow_null=True)
    error_count = serializers.IntegerField()

    status = serializers.SerializerMethodField()
    loaded = serializers.SerializerMethodField()
    status_reason = serializers.CharField()
    last_error = serializers.CharField()
    observed_at = UnixTimeField(allow_null=True, help_text="When loaderd last saw this state.")
    runtime = serializers.SerializerMethodField(help_text="The process; null when there is none.")
    lineage = serializers.CharField(source="lineage.name")
    format = serializers.CharField(source="artifact_format")
    digest = serializers.CharField()
    desired_state = serializers.ChoiceField(choices=DesiredState.choices)
    approved = serializers.BooleanField(source="is_approved", help_text="A person approved exactly these bytes.")
    refusal = serializers.CharField(help_text="Why discovery refuses the directory now; empty when it does not.")
    missing_since = UnixTimeField(allow_null=True)
    stale_in_memory = serializers.BooleanField(source="is_stale_in_memory", help_text="Other bytes are on disk.")
    signature = serializers.JSONField(allow_null=True)
    load_timeout_seconds = serializers.FloatField(allow_null=True)
    threads = serializers.IntegerField(allow_null=True)
    max_batch_size = serializers.IntegerField()
    links = serializers.SerializerMethodField()

    class Meta:
        deferred = ("manifest", "config", "metadata")

    def get_path(self, version: ModelVersion) -> str:
        return str(settings.CONFIG.MODELS_DIR / version.path)

    @extend_schema_field(OpenApiTypes.OBJECT)
    def get_performance_metrics(self, version: ModelVersion) -> dict[str, Any]:
        return measures.performance_metrics(version)

    def get_memory_usage_mb(self, version: ModelVersion) -> int | None:
        return mebibytes(version.private_bytes) if self.get_loaded(version) else None

    def get_gpu_memory_usage_mb(self, version: ModelVersion) -> int | None:
        return mebibytes(version.gpu_bytes) if self.get_loaded(version) else None

    @extend_schema_field(RuntimeSerializer(allow_null=True))
    def get_runtime(self, version: ModelVersion) -> dict[str, Any] | None:
        holds_process = self.get_status(version) in (ModelState.LOADING, ModelState.LOADED, ModelState.UNLOADING)
        return dict(RuntimeSerializer(version).data) if holds_process else None

    @extend_schema_field(LinksSerializer)
    def get_links(self, version: ModelVersion) -> dict[str, str]:
        own = reverse("model-detail", kwargs={"model_id": version.model_id})
        parts = {"load": "load", "unload": "unload", "predict": "predict", "performance": "performance"}
        links = {"self": own, **{name: f"{own}/{part}" for name, part in parts.items()}}
        links["state_changes"] = f"{own}/state-changes"
        links["operations"] = f"{reverse('operation-list')}/?{urlencode({'model': version.model_id})}"
        return links


class PolicySerializer(serializers.ModelSerializer):
    """What people may set; it counts from the next load on. The name is metadata.json's: discovery writes it."""

    load_timeout_seconds = serializers.FloatField(required=False, allow_null=True, min_value=0.1, max_value=86_400)
    threads = serializers.IntegerField(required=False, allow_null=True, min_value=1, max_value=1024)
    max_batch_size = serializers.IntegerField(required=False, min_value=1, max_value=65_536)

    class Meta:
        model = ModelVersion
        fields = ("load_timeout_seconds", "threads", "max_batch_size")


class PerformanceSerializer(EffectiveStatus):
    """Exactly the specification's fields."""

    model_id = serializers.CharField()
    load_count = serializers.IntegerField()
    usage_count = serializers.IntegerField()
    average_load_time = serializers.FloatField(source="average_load_seconds", help_text="Seconds.")
    performance_metrics = serializers.SerializerMethodField()
    memory_efficiency = serializers.SerializerMethodField(help_text="0 to 1; null when not loaded.")
    error_rate = serializers.FloatField(help_text="Share of predictions that failed, 0 to 1.")

    @extend_schema_field(OpenApiTypes.OBJECT)
    def get_performance_metrics(self, version: ModelVersion) -> dict[str, Any]:
        return measures.performance_metrics(version)

    def get_memory_efficiency(self, version: ModelVersion) -> float | None:
        return measures.memory_efficiency(version) if self.get_loaded(version) else None


class StateChangeSerializer(serializers.ModelSerializer):
    at = UnixTimeField()
    operation = serializers.UUIDField(source="operation_id", allow_null=True)

    class Meta:
        model = StateChange
        fields = ("from_state", "to_state", "reason", "actor", "operation", "at")
