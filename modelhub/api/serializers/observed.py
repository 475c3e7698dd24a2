"""What is told only as far as loaderd is heard."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from loaderd.states import ModelState
from modelhub.lifecycle.observed import effective_status, known, reason_of
from modelhub.registry.choices import HealthStatus
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

    def get_status_reason(self, version: ModelVersion) -> str:
        return reason_of(version, self.context["loader"])

    @extend_schema_field(serializers.ChoiceField(choices=HealthStatus.choices))
    def get_health_status(self, version: ModelVersion) -> str:
        return str(known(version.health_status, self.get_status(version)) or HealthStatus.UNKNOWN)
