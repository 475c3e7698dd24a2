"""Approval, canary and discovery."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from modelhub.api.fields import UnixTimeField
from modelhub.api.serializers.body import RequestSerializer
from modelhub.registry.models import DiscoveryRun


class ApproveSerializer(RequestSerializer):
    digest = serializers.RegexField(
        "^[0-9a-f]{64}$",
        required=False,
        help_text="The bytes that were looked at; without: those that are registered now.",
    )


class ApprovalSerializer(serializers.Serializer):
    model_id = serializers.CharField()
    approved = serializers.BooleanField(source="is_approved")
    digest = serializers.CharField(help_text="The registered bytes.")
    approved_by = serializers.CharField(allow_null=True)
    approved_at = UnixTimeField(allow_null=True)


class ForgottenCanarySerializer(serializers.Serializer):
    model_id = serializers.CharField()
    digest = serializers.CharField(help_text="The bytes that it was recorded of.")
    canary = serializers.DictField(help_text="What was forgotten: inputs, outputs, shapes, tolerance, reproducible.")


class RefusedSerializer(serializers.Serializer):
    path = serializers.CharField()
    reason = serializers.CharField()


class FoundSerializer(serializers.Serializer):
    """Ids of models; `refused` by path."""

    new = serializers.ListField(child=serializers.CharField())
    changed = serializers.ListField(child=serializers.CharField(), help_text="Other bytes than before.")
    gone = serializers.ListField(child=serializers.CharField())
    returned = serializers.ListField(child=serializers.CharField())
    refused = RefusedSerializer(many=True)
    stale_in_memory = serializers.ListField(child=serializers.CharField(), help_text="Loaded from other bytes.")
    notes = serializers.ListField(child=serializers.CharField())
    counts = serializers.DictField(child=serializers.IntegerField(), help_text="How many of each, and `unchanged`.")


class DiscoverySerializer(serializers.ModelSerializer):
    started_at = UnixTimeField()
    finished_at = UnixTimeField(allow_null=True, help_text="Null while it runs, or when it was killed.")
    report = serializers.SerializerMethodField()

    class Meta:
        model = DiscoveryRun
        fields = ("started_at", "finished_at", "actor", "error", "report")

    @extend_schema_field(FoundSerializer(allow_null=True))
    def get_report(self, run: DiscoveryRun) -> dict[str, Any] | None:
        return run.report or None
