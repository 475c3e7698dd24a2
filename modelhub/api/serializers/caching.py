"""What clearing the response cache came to."""

from __future__ import annotations

from rest_framework import serializers


class ClearedCacheSerializer(serializers.Serializer):
    model_id = serializers.CharField(allow_null=True, help_text="Null: of all models.")
    forgotten = serializers.IntegerField(help_text="Answers that were kept until now.")
