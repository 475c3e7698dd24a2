"""Bodies of requests: a field that nobody knows is refused, so that a misspelt one is not passed over in silence."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

# Fields that the browsable API's forms add.
_OF_FORMS = frozenset({"csrfmiddlewaretoken"})


class KnownFieldsOnly(serializers.BaseSerializer):
    """For serializers of requests: raises ValidationError that names each unknown field."""

    def to_internal_value(self, data: Any) -> Any:
        known: dict[str, serializers.Field] = self.fields
        if hasattr(data, "keys"):
            unknown = sorted(set(data) - set(known) - _OF_FORMS)
            if unknown:
                raise serializers.ValidationError({name: [self.unknown(name)] for name in unknown})
        return super().to_internal_value(data)

    def unknown(self, name: str) -> str:
        """What is told of a field that nobody knows."""
        known = ", ".join(self.fields)
        return f"{name} is not known here; {f'known are {known}' if known else 'nothing is expected'}."


class RequestSerializer(KnownFieldsOnly, serializers.Serializer):
    """The base of what requests carry."""


class NoBodySerializer(RequestSerializer):
    """For what needs to know no more than its address."""
