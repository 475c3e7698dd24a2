"""The windows over which figures are told: the last hour, day or week."""

from __future__ import annotations

from rest_framework import serializers

from modelhub.api.fields import NamedChoiceField

SECONDS_OF = {"1h": 3600, "24h": 24 * 3600, "7d": 7 * 24 * 3600}
DEFAULT = "1h"


class WindowQuerySerializer(serializers.Serializer):
    window = NamedChoiceField(choices=list(SECONDS_OF), default=DEFAULT, help_text="How far back.")
