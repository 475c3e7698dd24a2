"""How the settings that change at run time are told and set."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from modelhub.api.fields import NamedChoiceField, UnixTimeField
from modelhub.api.serializers.body import RequestSerializer
from modelhub.conf import Config
from modelhub.policy.models import OVERRIDABLE, Policy, PolicyChange

SETTING_SOURCES = ["policy", "environment", "default"]


class SettingSerializer(serializers.Serializer):
    name = serializers.CharField()
    value = serializers.JSONField(help_text="What counts.")
    source = serializers.ChoiceField(choices=SETTING_SOURCES, help_text="Where the value comes from.")
    environment = serializers.JSONField(help_text="What counts without the policy: loaderd's environment or a default.")
    override = serializers.JSONField(allow_null=True, help_text="What the policy says in its place; null: nothing.")
    observed = serializers.JSONField(allow_null=True, help_text="What loaderd worked by; null: it has no part in it.")
    observed_at = UnixTimeField(allow_null=True, help_text="When loaderd said so.")
    description = serializers.CharField()


def _field_of(name: str) -> serializers.Field:
    """A field for a setting's value; null takes the override away. What is allowed is checked by the policy itself."""
    column = Policy._meta.get_field(name.lower())
    options: dict[str, Any] = {
        "required": False,
        "allow_null": True,
        "help_text": Config.model_fields[name].description,
    }
    if column.choices:
        return NamedChoiceField(choices=column.choices, **options)
    if column.get_internal_type() == "BooleanField":
        return serializers.BooleanField(**options)
    is_whole = column.get_internal_type() == "PositiveIntegerField"
    return serializers.IntegerField(**options) if is_whole else serializers.FloatField(**options)


class OverridesSerializer(RequestSerializer):
    """Setting -> value, or null: back to what the environment says. What is absent stays as it is."""

    def get_fields(self) -> dict[str, serializers.Field]:
        return {name: _field_of(name) for name in OVERRIDABLE}

    def unknown(self, name: str) -> str:
        return f"{name} is no setting that changes at run time; those are {', '.join(OVERRIDABLE)}."


class PolicyChangeSerializer(serializers.ModelSerializer):
    at = UnixTimeField()

    class Meta:
        model = PolicyChange
        fields = ("setting", "before", "after", "actor", "at")
