"""Bodies of requests: what is misspelt or of another type than it should be is refused, not passed over or guessed at."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from django.http import QueryDict
from rest_framework import serializers

# Fields that the browsable API's forms add.
_OF_FORMS = frozenset({"csrfmiddlewaretoken"})

# What JSON has for a field, and its name for people. The first that fits counts: DRF would take `true` for 1 and 5 for "5".
_JSON_TYPES: tuple[tuple[type[serializers.Field], tuple[type, ...], str], ...] = (
    (serializers.BooleanField, (bool,), "true or false"),
    (serializers.IntegerField, (int,), "a whole number"),
    (serializers.FloatField, (int, float), "a number"),
    (serializers.CharField, (str,), "a text"),
    (serializers.ChoiceField, (str,), "a text"),
)


_LARGEST = 1e300  # float() raises for what is much larger


class KnownFieldsOnly(serializers.BaseSerializer):
    """For serializers of requests: raises ValidationError that names each unknown field, and each of a wrong type."""

    def to_internal_value(self, data: Any) -> Any:
        known: dict[str, serializers.Field] = self.fields
        if hasattr(data, "keys"):
            unknown = sorted(set(data) - set(known) - _OF_FORMS)
            if unknown:
                raise serializers.ValidationError({name: [self.unknown(name)] for name in unknown})
            if not isinstance(data, QueryDict):  # in a form all is text
                _check_types(data, known)
        return super().to_internal_value(data)

    def unknown(self, name: str) -> str:
        """What is told of a field that nobody knows."""
        known = ", ".join(self.fields)
        return f"{name} is not known here; {f'known are {known}' if known else 'nothing is expected'}."


def _check_types(data: Mapping[str, Any], fields: Mapping[str, serializers.Field]) -> None:
    wrong = {}
    for name, value in data.items():
        wanted = next((kind for kind in _JSON_TYPES if isinstance(fields[name], kind[0])), None)
        if wanted is None or value is None:  # null is the field's own matter
            continue
        _, types, what = wanted
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            wrong[name] = [f"Must be {what}, not {json.dumps(value)[:60]}."]
        elif is_number and not abs(value) <= _LARGEST:
            wrong[name] = ["The number is too large."]
    if wrong:
        raise serializers.ValidationError(wrong)


class RequestSerializer(KnownFieldsOnly, serializers.Serializer):
    """The base of what requests carry."""


class NoBodySerializer(RequestSerializer):
    """For what needs to know no more than its address."""
