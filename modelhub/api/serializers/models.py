"""How a model is told: in the list, in detail, and its history."""

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
from modelhub.api.serializers.managed import ManagedFields
from modelhub.api.serializers.observed import EffectiveStatus
from modelhub.lifecycle.models import StateChange
from modelhub.registry.choices import ModelType
from modelhub.registry.models import ModelVersion, large_columns


class SpecifiedSummary(EffectiveStatus):
    """The specification's fields of an entry of the list."""

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

    def get_memory_usage(self, version: ModelVersion) -> int | None:
        return self._of_loaded(version, version.private_bytes)

    def get_gpu_memory_usage(self, version: ModelVersion) -> int | None:
        return self._of_loaded(version, version.gpu_bytes)

    def _of_loaded(self, version: ModelVersion, size_bytes: int | None) -> int | None:
        wanted = self.context["include_loaded"] and self.get_loaded(version)
        return mebibytes(size_bytes) if wanted else None


class ModelSummarySerializer(SpecifiedSummary, ManagedFields):
    """An entry of the list: the specification's fields, then those beside it."""

    class Meta:
        # What the fields read; the rest, JSON of any size among it, stays in the database.
        columns = (
            "model_id", "name", "lineage__type", "version", "framework", "status", "private_bytes", "gpu_bytes",
            "load_count", "usage_count", "health_status", "observed_at", *ManagedFields.Meta.columns,
        )  # fmt: skip


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
    activate = serializers.CharField()
    predict = serializers.CharField()
    performance = serializers.CharField()
    samples = serializers.CharField()
    lineage = serializers.CharField()
    state_changes = serializers.CharField()
    operations = serializers.CharField()


class SpecifiedDetail(EffectiveStatus):
    """The specification's fields of the detail."""

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

    def get_path(self, version: ModelVersion) -> str:
        return str(settings.CONFIG.MODELS_DIR / version.path)

    @extend_schema_field(OpenApiTypes.OBJECT)
    def get_performance_metrics(self, version: ModelVersion) -> dict[str, Any]:
        return measures.performance_metrics(version)

    def get_memory_usage_mb(self, version: ModelVersion) -> int | None:
        return mebibytes(version.private_bytes) if self.get_loaded(version) else None

    def get_gpu_memory_usage_mb(self, version: ModelVersion) -> int | None:
        return mebibytes(version.gpu_bytes) if self.get_loaded(version) else None


class ModelDetailSerializer(SpecifiedDetail, ManagedFields):
    """The specification's detail, then what it does not have: observed state, names, policy, health, approval."""

    status = serializers.SerializerMethodField()
    loaded = serializers.SerializerMethodField()
    status_reason = serializers.SerializerMethodField()
    last_error = serializers.CharField()
    observed_at = UnixTimeField(allow_null=True, help_text="When loaderd last saw this state.")
    runtime = serializers.SerializerMethodField(help_text="The process; null when there is none.")
    format = serializers.CharField(source="artifact_format")
    digest = serializers.CharField()
    approved = serializers.BooleanField(source="is_approved", help_text="A person approved exactly these bytes.")
    refusal = serializers.CharField(help_text="Why discovery refuses the directory now; empty when it does not.")
    missing_since = UnixTimeField(allow_null=True)
    stale_in_memory = serializers.BooleanField(source="is_stale_in_memory", help_text="Other bytes are on disk.")
    signature = serializers.JSONField(allow_null=True)
    load_timeout_seconds = serializers.FloatField(allow_null=True)
    threads = serializers.IntegerField(allow_null=True)
    instances = serializers.IntegerField(help_text="Processes that answer for it.")
    max_batch_size = serializers.IntegerField()
    max_queue = serializers.IntegerField(help_text="Predictions that wait at each of its processes.")
    precision = serializers.CharField(help_text="What it computes in; empty: as stored.")
    cache_enabled = serializers.BooleanField(
        allow_null=True, help_text="Its answers are kept and given again; null: as CACHE_ENABLED says."
    )
    cache_ttl_seconds = serializers.FloatField(
        allow_null=True, help_text="Seconds for which an answer is kept; null: CACHE_TTL_SECONDS."
    )
    cache_hit_count = serializers.IntegerField(help_text="Predictions answered without the model.")
    cache_miss_count = serializers.IntegerField(help_text="Predictions computed although its answers are kept.")
    cache_hit_rate = serializers.FloatField(allow_null=True, help_text="hits / (hits + misses); null without both.")
    rolled_back_reason = serializers.CharField()
    links = serializers.SerializerMethodField()

    class Meta:
        # All that is large but what it tells.
        deferred = tuple(set(large_columns()) - {"performance_metrics", "signature"})

    @extend_schema_field(RuntimeSerializer(allow_null=True))
    def get_runtime(self, version: ModelVersion) -> dict[str, Any] | None:
        holds_process = self.get_status(version) in (ModelState.LOADING, ModelState.LOADED, ModelState.UNLOADING)
        return dict(RuntimeSerializer(version).data) if holds_process else None

    @extend_schema_field(LinksSerializer)
    def get_links(self, version: ModelVersion) -> dict[str, str]:
        own = reverse("model-detail", kwargs={"model_id": version.model_id})
        parts = ("load", "unload", "activate", "predict", "performance", "samples")
        links = {"self": own, **{part: f"{own}/{part}" for part in parts}}
        links["lineage"] = reverse("lineage-detail", kwargs={"name": version.lineage.name})
        links["state_changes"] = f"{own}/state-changes"
        links["operations"] = f"{reverse('operation-list')}/?{urlencode({'model': version.model_id})}"
        return links


class StateChangeSerializer(serializers.ModelSerializer):
    at = UnixTimeField()
    operation = serializers.UUIDField(source="operation_id", allow_null=True)

    class Meta:
        model = StateChange
        fields = ("from_state", "to_state", "reason", "actor", "operation", "at")
