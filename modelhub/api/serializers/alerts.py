"""How an alert is told, and what the list of alerts may be asked."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from modelhub.api.fields import NamedChoiceField, UnixTimeField
from modelhub.telemetry.models import Alert

ALERT_STATES = ["open", "acknowledged", "resolved"]


class AlertSerializer(serializers.ModelSerializer):
    state = serializers.ChoiceField(choices=ALERT_STATES, read_only=True)
    model_id = serializers.SerializerMethodField(help_text="Null for what concerns the host.")
    opened_at = UnixTimeField()
    last_seen_at = UnixTimeField()
    acknowledged_at = UnixTimeField(allow_null=True)
    acknowledged_by = serializers.CharField(source="acknowledged_by_name")
    resolved_at = UnixTimeField(allow_null=True)

    class Meta:
        model = Alert
        fields = (
            "id", "state", "kind", "model_id", "message", "value", "threshold", "opened_at", "last_seen_at",
            "acknowledged_at", "acknowledged_by", "resolved_at",
        )  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_model_id(self, alert: Alert) -> str | None:
        return alert.version.model_id if alert.version is not None else None


class AlertQuerySerializer(serializers.Serializer):
    state = NamedChoiceField(
        choices=[*ALERT_STATES, "unresolved"], required=False, help_text="unresolved: open or acknowledged."
    )
    kind = serializers.CharField(required=False, help_text="error_rate, memory, gave_up, …")
    model = serializers.CharField(required=False, help_text="Id of a model.")
