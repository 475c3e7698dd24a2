"""The one shape of errors, for the schema."""

from __future__ import annotations

from rest_framework import serializers

WORDING = {
    400: "The request is malformed or does not fit; `details` names the fields.",
    401: "No user: log in, or send `Authorization: Token …`.",
    403: "The user lacks the permission that `message` names.",
    404: "There is no such model or operation.",
    409: "The state forbids it; `message` says which and what to do.",
    413: "The body passes API_MAX_BODY_MB.",
    429: "The model's queue is full, or too many wait for its load; repeat later.",
    500: "The model or the server failed; `code` tells which.",
    503: "loaderd, the model's process or the database is away; `message` says whether the command was kept.",
    504: "The time limit passed.",
    507: "The model does not fit into memory; `details` has the sum and what would not go.",
}


class ErrorBodySerializer(serializers.Serializer):
    code = serializers.CharField(help_text="Stable word for programs.")
    message = serializers.CharField(help_text="What failed, for what, why, what to do next.")
    details = serializers.DictField(help_text="Facts behind the message: fields, model_id, bytes, seconds.")


class ErrorSerializer(serializers.Serializer):
    error = ErrorBodySerializer()
