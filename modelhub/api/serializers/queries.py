"""What the lists may be asked: their query parameters, checked like a body and told in the schema."""

from __future__ import annotations

from typing import Any

from django.db.models import F, Q, QuerySet
from rest_framework import serializers

from modelhub.api.fields import NamedChoiceField
from modelhub.api.serializers.observed import EFFECTIVE_STATUSES
from modelhub.lifecycle.models import Operation, OperationKind, OperationStatus
from modelhub.lifecycle.observed import LoaderView, effective_status
from modelhub.registry.choices import ModelType, Status
from modelhub.registry.models import ModelVersion

ORDERINGS = {
    "id": "model_id",
    "name": "name",
    "type": "lineage__type",
    "version": "version",
    "status": "status",
    "framework": "framework",
    "created_at": "created_at",
    "last_loaded": "last_loaded_at",
    "load_count": "load_count",
    "usage_count": "usage_count",
    "memory_usage": "private_bytes",
}


class ModelQuerySerializer(serializers.Serializer):
    include_loaded = serializers.BooleanField(
        default=True, help_text="Tell the memory of loaded models; when false it is null."
    )
    type = NamedChoiceField(choices=ModelType.choices, required=False)
    framework = serializers.CharField(required=False)
    status = NamedChoiceField(choices=EFFECTIVE_STATUSES, required=False)
    search = serializers.CharField(required=False, allow_blank=True, help_text="Part of the id, name or lineage.")
    ordering = serializers.CharField(
        required=False, help_text=f"One of {', '.join(ORDERINGS)}; `-` before it turns it round. Default: id."
    )

    def validate_ordering(self, value: str) -> str:
        if value.removeprefix("-") not in ORDERINGS:
            raise serializers.ValidationError(f"{value!r} is none of {', '.join(ORDERINGS)}, with or without `-`.")
        return value


class OperationQuerySerializer(serializers.Serializer):
    kind = NamedChoiceField(choices=OperationKind.choices, required=False)
    status = NamedChoiceField(choices=OperationStatus.choices, required=False)
    model = serializers.CharField(required=False, help_text="Id of a model.")


def narrowed_models(
    versions: QuerySet[ModelVersion], query: dict[str, Any], loader: LoaderView
) -> QuerySet[ModelVersion]:
    """The models that were asked for, in the order asked for."""
    if "type" in query:
        versions = versions.filter(lineage__type=query["type"])
    if "framework" in query:
        versions = versions.filter(framework=query["framework"])
    if "status" in query:
        versions = versions.filter(_has_effective_status(query["status"], loader))
    if text := query.get("search"):
        versions = versions.filter(
            Q(model_id__icontains=text) | Q(name__icontains=text) | Q(lineage__name__icontains=text)
        )
    ordering = query.get("ordering", "id")
    column = F(ORDERINGS[ordering.removeprefix("-")])
    first = column.desc(nulls_last=True) if ordering.startswith("-") else column.asc(nulls_last=True)
    return versions.order_by(first, "model_id")


def _has_effective_status(wanted: str, loader: LoaderView) -> Q:
    """The stored statuses that are told as `wanted`: effective_status() is asked, not repeated."""
    stored = [status for status in Status.values if effective_status(ModelVersion(status=status), loader) == wanted]
    return Q(status__in=stored)


def narrowed_operations(operations: QuerySet[Operation], query: dict[str, Any]) -> QuerySet[Operation]:
    if "kind" in query:
        operations = operations.filter(kind=query["kind"])
    if "status" in query:
        operations = operations.filter(status=query["status"])
    if "model" in query:
        operations = operations.filter(version__model_id=query["model"])
    return operations
