"""What a prediction takes and answers."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from modelhub.api.serializers.body import RequestSerializer

_NUMBERS = {"type": "array", "items": {"oneOf": [{"type": "number"}, {"type": "string"}]}}


@extend_schema_field({"type": "array", "minItems": 1, "items": {"oneOf": [{"type": "string"}, _NUMBERS]}})
class InputsField(serializers.JSONField):
    """A list of texts or of rows; a JSON field, so that the browsable API can draw a form for it.

    What a text or row may be is the model's matter: its process checks it against its signature.
    """

    default_error_messages = {
        "not_a_list": "Must be a list of texts or of rows, with at least one.",
    }

    def to_internal_value(self, data: Any) -> list[Any]:
        inputs = super().to_internal_value(data)
        if not isinstance(inputs, list) or not inputs:
            self.fail("not_a_list")
        return inputs


class PredictSerializer(RequestSerializer):
    inputs = InputsField(
        style={"base_template": "textarea.html", "rows": 4},
        help_text='["a text", "another"] or [[5.1, 3.5], [4.9, 3.0]]',
    )


class PredictionSerializer(serializers.Serializer):
    """`label`, `score` and `scores` from a classifier, `output` from everything else."""

    label = serializers.CharField(required=False)
    score = serializers.FloatField(required=False, allow_null=True, help_text="Of `label`, 0 to 1.")
    scores = serializers.DictField(child=serializers.FloatField(), required=False, help_text="Of each label.")
    output = serializers.JSONField(required=False)


class PredictionsSerializer(serializers.Serializer):
    model_id = serializers.CharField()
    version = serializers.CharField()
    predictions = PredictionSerializer(many=True, help_text="One for each input, in order.")
    latency_ms = serializers.FloatField(help_text="In the model's process: waiting for the batch, and predicting.")
