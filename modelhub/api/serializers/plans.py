"""What a dry run answers: what would happen, with its sum. For the schema; the plan itself is loaderd's."""

from __future__ import annotations

from rest_framework import serializers

from loaderd.scheduler import Decision

DECISIONS = [decision.value for decision in Decision]


class VictimSerializer(serializers.Serializer):
    model_id = serializers.CharField()
    bytes = serializers.IntegerField(help_text="What comes back.")
    gpu_bytes = serializers.IntegerField()
    reason = serializers.CharField(help_text="Why this one.")


class KeptSerializer(serializers.Serializer):
    model_id = serializers.CharField()
    bytes = serializers.IntegerField()
    reason = serializers.CharField(help_text="Why it would not go.")


class LoadPlanSerializer(serializers.Serializer):
    """Limits are null where there is none."""

    decision = serializers.ChoiceField(choices=DECISIONS)
    model_id = serializers.CharField()
    needed_bytes = serializers.IntegerField(help_text="Expected peak of the load.")
    needed_gpu_bytes = serializers.IntegerField()
    measured = serializers.BooleanField(help_text="From the last load of these bytes; false: estimated.")
    used_bytes = serializers.IntegerField(help_text="Held by the other models now, as measured.")
    reserved_bytes = serializers.IntegerField(help_text="Promised to loads under way, beyond what they hold.")
    headroom_bytes = serializers.IntegerField(help_text="Kept for loaded models that held so much more before.")
    free_bytes = serializers.IntegerField(allow_null=True)
    budget_bytes = serializers.IntegerField(allow_null=True)
    gpu_used_bytes = serializers.IntegerField()
    gpu_free_bytes = serializers.IntegerField(allow_null=True)
    gpu_budget_bytes = serializers.IntegerField(allow_null=True)
    evict = VictimSerializer(many=True, help_text="What would go for it.")
    kept = KeptSerializer(many=True, help_text="What could have made room and would not go.")
    wait_seconds = serializers.FloatField(allow_null=True, required=False)
    sentence = serializers.CharField(help_text="The same for people.")


class ActivatePlanSerializer(LoadPlanSerializer):
    replaces = serializers.CharField(allow_null=True, help_text="The version that is live now.")
    needs_gap = serializers.BooleanField(help_text="Both do not fit beside each other: only with allow_gap.")


class UnloadPlanSerializer(serializers.Serializer):
    decision = serializers.CharField(help_text="frees")
    model_id = serializers.CharField()
    frees_bytes = serializers.IntegerField()
    frees_gpu_bytes = serializers.IntegerField()
    in_flight = serializers.IntegerField(help_text="Predictions that would be waited for.")
    sentence = serializers.CharField()


class OptimizePlanSerializer(serializers.Serializer):
    decision = serializers.CharField(help_text="frees")
    victims = VictimSerializer(many=True)
    frees_bytes = serializers.IntegerField()
    sentence = serializers.CharField()
