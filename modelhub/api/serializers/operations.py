"""How an operation is told, and what the commands take and answer."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from modelhub.api.fields import UnixTimeField
from modelhub.api.serializers.body import RequestSerializer
from modelhub.api.serializers.errors import ErrorBodySerializer
from modelhub.lifecycle.models import Operation


class ReasonSerializer(RequestSerializer):
    reason = serializers.CharField(required=False, allow_blank=True, max_length=500, help_text="Why, for the history.")


class CommandSerializer(ReasonSerializer):
    """What load, unload and optimize-memory take."""

    dry_run = serializers.BooleanField(
        required=False, default=False, help_text="Answer the plan and change nothing; ?dry_run=true does the same."
    )


class ActivateSerializer(CommandSerializer):
    allow_gap = serializers.BooleanField(
        required=False,
        default=False,
        help_text="When both versions do not fit into memory: unload the live one first. Requests wait meanwhile.",
    )


class RollBackSerializer(ActivateSerializer):
    to = serializers.CharField(
        required=False,
        allow_null=True,
        allow_blank=True,
        help_text="Id of the version to go back to; without: the one that was live before.",
    )


class LoadedSerializer(serializers.Serializer):
    model_id = serializers.CharField()
    status = serializers.CharField(help_text="loaded")
    load_time = serializers.FloatField(help_text="Seconds that loaderd needed.")
    memory_usage = serializers.IntegerField(allow_null=True, help_text="MiB; null when it could not be measured.")


class UnloadedSerializer(serializers.Serializer):
    model_id = serializers.CharField()
    status = serializers.CharField(help_text="unloaded, or not_loaded when nothing was to be done")


class ActivatedSerializer(serializers.Serializer):
    model_id = serializers.CharField()
    lineage = serializers.CharField()
    status = serializers.CharField(help_text="live")
    previous = serializers.CharField(allow_null=True, help_text="The version that was live before.")
    load_time = serializers.FloatField(allow_null=True, help_text="Seconds; 0 or null when it was loaded already.")
    memory_freed_mb = serializers.IntegerField(allow_null=True, help_text="MiB that came back from the one before.")
    gap_seconds = serializers.FloatField(allow_null=True, help_text="How long nobody answered; null without a gap.")


class OperationSerializer(serializers.ModelSerializer):
    model_id = serializers.SerializerMethodField(help_text="Null for what concerns all models.")
    parameters = serializers.DictField(help_text="What the command was given.")
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
            "requested_at", "started_at", "finished_at", "attempts", "parameters", "result", "error",
        )  # fmt: skip
        read_only_fields = fields

    def get_model_id(self, operation: Operation) -> str | None:
        return operation.version.model_id if operation.version is not None else None

    @extend_schema_field(ErrorBodySerializer(allow_null=True))
    def get_error(self, operation: Operation) -> dict[str, Any] | None:
        if not operation.error:
            return None
        error = operation.error
        return {"code": error.get("code"), "message": error.get("message"), "details": error.get("facts", {})}
