"""What people may set of one model."""

from __future__ import annotations

from rest_framework import serializers

from modelhub.api.fields import NamedChoiceField
from modelhub.api.serializers.body import KnownFieldsOnly
from modelhub.registry.choices import Precision
from modelhub.registry.models import MAX_INSTANCES, MAX_QUEUE, ModelVersion

PRECISIONS = [choice for choice in Precision.choices if choice[0]]


class ModelPolicySerializer(KnownFieldsOnly, serializers.ModelSerializer):
    """The name is metadata.json's: discovery writes it. The desired state is set by load and unload."""

    load_timeout_seconds = serializers.FloatField(required=False, allow_null=True, min_value=0.1, max_value=86_400)
    threads = serializers.IntegerField(required=False, allow_null=True, min_value=1, max_value=1024)
    instances = serializers.IntegerField(required=False, min_value=1, max_value=MAX_INSTANCES)
    max_batch_size = serializers.IntegerField(required=False, min_value=1, max_value=65_536)
    max_queue = serializers.IntegerField(required=False, min_value=1, max_value=MAX_QUEUE)
    precision = NamedChoiceField(required=False, choices=PRECISIONS, allow_blank=True)
    pinned = serializers.BooleanField(required=False)
    priority = serializers.IntegerField(required=False, min_value=0, max_value=100)
    autoload = serializers.BooleanField(required=False)
    keep_alive_seconds = serializers.FloatField(required=False, allow_null=True, min_value=1, max_value=31_536_000)
    cache_enabled = serializers.BooleanField(required=False, allow_null=True)
    cache_ttl_seconds = serializers.FloatField(required=False, allow_null=True, min_value=0.1, max_value=31_536_000)
    memory_limit_mb = serializers.IntegerField(required=False, allow_null=True, min_value=1, max_value=16_777_216)

    class Meta:
        model = ModelVersion
        fields = (
            "load_timeout_seconds", "instances", "threads", "max_batch_size", "max_queue", "precision", "pinned",
            "priority", "autoload", "keep_alive_seconds", "cache_enabled", "cache_ttl_seconds", "memory_limit_mb",
        )  # fmt: skip
