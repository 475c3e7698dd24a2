"""How an operation is told, and what load and unload take and answer."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from modelhub.api.fields import UnixTimeField
from modelhub.api.serializers.errors import ErrorBodySerializer
from modelhub.lifecycle.models import Operation


class ReasonSerializer(serializers.Serializer):
    reason = serializers.CharField(required=False, allow_blank=True, max_length=500, help_text="Why, for the history.")


class LoadedSerializer(serializers.Serializer):
    model_id = serializers.CharField()
    status = serializers.CharField(help_text="loaded")
    load_time = serializers.FloatField(help_text="Seconds that loaderd needed.")
    memory_usage = serializers.IntegerField(allow_null=True, help_text="MiB; null when it could not be measured.")


class UnloadedSerializer(serializers.Serializer):
    model_id = serializers.CharField()
    status = serializers.CharField(help_text="unloaded, or not_loaded when nothing was to be done")


class OperationSerializer(serializers.ModelSerializer):
    model_id = serializers.CharField(source="version.model_id")
    requested_by = serializers.CharField(source="requested_by_name")
    requested_at = UnixTimeField()
    started_at = UnixTimeField(allow_null=True)
    finished_at = UnixTimeField(allow_null=True)
    result = serializers.DictField(allow_null=True)
    error = serializers.SerializerMethodField(help_text="As in an error response; null unless it failed.")

    class Meta:
        model = Operation
        fields = (
            "id", "kind", "model_id", "status", "phase", "progress", "requested_by", "reason", "source",
            "requested_at", "started_at", "finished_at", "attempts", "result", "error",
        )  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(ErrorBodySerializer(allow_null=True))
    def get_error(self, operation: Operation) -> dict[str, Any] | None:
        if not operation.error:
            return None
        error = operation.error
        return {"code": error.get("code"), "message": error.get("message"), "details": error.get("facts", {})}
