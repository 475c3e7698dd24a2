"""Bodies of requests: what is misspelt, or of another type than wanted, is refused, not passed over or guessed at."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from django.http import QueryDict
from rest_framework import serializers

# Fields that the browsable API's forms add.
_OF_FORMS = frozenset({"csrfmiddlewaretoken"})

# What a field may be in JSON, in Python's types and in words. DRF itself would take `true` for 1 and 5 for "5".
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
            is_form = isinstance(data, QueryDict)
            unknown = sorted(set(data) - set(known) - (_OF_FORMS if is_form else set()))
            if unknown:
                raise serializers.ValidationError({name: [self.unknown(name)] for name in unknown})
            if not is_form and (wrong := _of_wrong_type(data, known)):  # in a form all is text
                raise serializers.ValidationError(self._with_other_errors(data, wrong))
        return super().to_internal_value(data)

    def _with_other_errors(self, data: Mapping[str, Any], wrong: Mapping[str, list[str]]) -> dict[str, Any]:
        """All that is wrong with the fields, in the order in which they came."""
        found: dict[str, Any] = dict(wrong)
        try:
            super().to_internal_value({name: value for name, value in data.items() if name not in wrong})
        except serializers.ValidationError as error:
            found = {**error.detail, **wrong}
        return {name: found[name] for name in [*data, *found] if name in found}

    def unknown(self, name: str) -> str:
        """What is told of a field that nobody knows."""
        known = ", ".join(self.fields)
        return f"{name} is not known here; {f'known are {known}' if known else 'nothing is expected'}."


def _of_wrong_type(data: Mapping[str, Any], fields: Mapping[str, serializers.Field]) -> dict[str, list[str]]:
    """Field -> what is wrong, as DRF's errors; null is the field's own matter."""
    wrong = {}
    for name, value in data.items():
        wanted = next((kind for kind in _JSON_TYPES if isinstance(fields[name], kind[0])), None)
        if wanted is None or value is None:
            continue
        _, types, what = wanted
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            wrong[name] = [f"Must be {what}, not {json.dumps(value)[:60]}."]
        elif isinstance(value, (int, float)) and not abs(value) <= _LARGEST:
            wrong[name] = ["The number is too large."]
    return wrong


class RequestSerializer(KnownFieldsOnly, serializers.Serializer):
    """The base of what requests carry."""


class NoBodySerializer(RequestSerializer):
    """For what needs to know no more than its address."""
