"""How values are told: times as unix seconds, memory as whole MiB; and how a choice is asked for."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

MEBIBYTE = 1024 * 1024


def mebibytes(size_bytes: int | None) -> int | None:
    """Whole MiB, rounded up: what holds memory never shows as 0. None stays None: not measured, not loaded."""
    return None if size_bytes is None else -(-size_bytes // MEBIBYTE)


class NamedChoiceField(serializers.ChoiceField):
    """Names the choices when it is given another."""

    def __init__(self, choices: Any, **kwargs: Any) -> None:
        super().__init__(choices, **kwargs)
        self.error_messages["invalid_choice"] = f'"{{input}}" is none of {", ".join(map(str, self.choices))}.'


@extend_schema_field(OpenApiTypes.DOUBLE)
class UnixTimeField(serializers.Field):
    """Seconds since 1970 with a fraction, as the specification tells times. Read-only."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(read_only=True, **kwargs)

    def to_representation(self, value: datetime) -> float:
        return value.timestamp()
