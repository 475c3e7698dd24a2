"""What the specification does not have and the list and the detail both tell: names, policy, health, measures."""

from __future__ import annotations

from typing import Any

from django.db.models import prefetch_related_objects
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from loaderd.rules import LIVE
from modelhub.api.fields import UnixTimeField
from modelhub.registry.choices import DesiredState
from modelhub.registry.models import ModelVersion


class MeasuredSerializer(serializers.Serializer):
    """Highest figures of these bytes on this device; admission counts with them."""

    device = serializers.CharField(source="measured_device", help_text="cpu, or the GPU's name.")
    measured_as = serializers.CharField(help_text="In how many processes, and in which precision.")
    peak_bytes = serializers.IntegerField(source="measured_peak_bytes", allow_null=True, help_text="During the load.")
    resident_bytes = serializers.IntegerField(
        source="measured_resident_bytes", allow_null=True, help_text="While serving."
    )
    gpu_bytes = serializers.IntegerField(source="measured_gpu_bytes", allow_null=True)


class ManagedFields(serializers.Serializer):
    """One query a row for `aliases`, unless they are prefetched."""

    lineage = serializers.CharField(source="lineage.name")
    aliases = serializers.SerializerMethodField(help_text="Names that lead to it: live, candidate, or your own.")
    is_live = serializers.SerializerMethodField(help_text="Answers the lineage's bare name.")
    desired_state = serializers.ChoiceField(choices=DesiredState.choices)
    pinned = serializers.BooleanField(help_text="Never evicted, and never unloaded for being idle.")
    priority = serializers.IntegerField(help_text="0 to 100: higher is kept longer and loaded first.")
    autoload = serializers.BooleanField(help_text="Loaded when a prediction asks for it.")
    keep_alive_seconds = serializers.FloatField(allow_null=True, help_text="Unloaded when idle for that long.")
    memory_limit_mb = serializers.IntegerField(allow_null=True, help_text="MiB that its process may allocate.")
    status_cause = serializers.CharField(help_text="Why, for programs: evicted, idle, unused, replaced, crashed, …")
    health_reason = serializers.CharField()
    heartbeat_at = UnixTimeField(allow_null=True, help_text="When its process answered last.")
    canary_at = UnixTimeField(allow_null=True, help_text="When its canary was run last.")
    canary_ok = serializers.BooleanField(allow_null=True)
    canary_seconds = serializers.FloatField(allow_null=True)
    rolled_back_at = UnixTimeField(allow_null=True, help_text="When a rollback left this version.")
    measured = serializers.SerializerMethodField(help_text="Null when these bytes were never loaded.")

    class Meta:
        # What the fields above read.
        columns = (
            "lineage__name", "desired_state", "pinned", "priority", "autoload", "keep_alive_seconds", "memory_limit_mb",
            "status_cause", "health_reason", "heartbeat_at", "canary_at", "canary_ok", "canary_seconds",
            "rolled_back_at", "digest", "measured_digest", "measured_device", "measured_as", "measured_peak_bytes",
            "measured_resident_bytes", "measured_gpu_bytes",
        )  # fmt: skip

    def get_aliases(self, version: ModelVersion) -> list[str]:
        prefetch_related_objects([version], "aliases")  # no query when they are there
        return sorted(alias.name for alias in version.aliases.all())

    def get_is_live(self, version: ModelVersion) -> bool:
        return LIVE in self.get_aliases(version)

    @extend_schema_field(MeasuredSerializer(allow_null=True))
    def get_measured(self, version: ModelVersion) -> dict[str, Any] | None:
        is_of_these_bytes = bool(version.digest) and version.measured_digest == version.digest
        return dict(MeasuredSerializer(version).data) if is_of_these_bytes else None
