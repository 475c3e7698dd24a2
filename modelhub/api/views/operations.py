"""Operations: what was asked for, by whom, and how it stands."""

from __future__ import annotations

from typing import Any, cast

from django.db.models import QuerySet
from django.http import Http404
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from modelhub.api.pagination import BareListPagination
from modelhub.api.schema import PAGE_HEADERS, errors
from modelhub.api.serializers.operations import OperationSerializer
from modelhub.api.serializers.queries import OperationQuerySerializer, narrowed_operations
from modelhub.api.views.strict import StrictViewSet, check_no_body
from modelhub.lifecycle import actions
from modelhub.lifecycle.models import Operation


@extend_schema_view(
    list=extend_schema(
        summary="Operations, newest first",
        parameters=[OperationQuerySerializer, *PAGE_HEADERS],
        responses={200: OperationSerializer(many=True), **errors(400)},
    ),
    retrieve=extend_schema(summary="One operation", responses={200: OperationSerializer, **errors(404)}),
)
class OperationViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, StrictViewSet):
    """Commands: who asked for what, why, when, and how each stands."""

    queryset = Operation.objects.select_related("version").only(
        *(field.name for field in Operation._meta.concrete_fields if field.name != "requested_by"), "version__model_id"
    )
    serializer_class = OperationSerializer
    pagination_class = BareListPagination
    query_of_action = {"list": OperationQuerySerializer}
    lookup_field = "id"
    lookup_url_kwarg = "operation_id"
    lookup_value_regex = "[0-9a-fA-F-]{36}"

    def get_queryset(self) -> QuerySet[Operation]:
        operations: QuerySet[Operation] = super().get_queryset()
        if self.action == "list":
            operations = narrowed_operations(operations, self.asked())
        return operations

    def get_object(self) -> Operation:
        try:
            return cast(Operation, super().get_object())
        except Http404:
            told = f"No operation has the id {self.kwargs['operation_id']}; GET /api/operations/ lists them."
            raise NotFound(told) from None

    @extend_schema(
        summary="Cancel an operation that has not ended",
        request=None,
        responses={200: OperationSerializer, **errors(403, 404, 409)},
    )
    @action(detail=True, methods=["post"], serializer_class=serializers.Serializer)
    def cancel(self, request: Request, **kwargs: Any) -> Response:
        """Queued: at once. A running load: its process is ended. 409 when it is over or an unload that began."""
        check_no_body(request)
        operation = self.get_object()
        cancelled = actions.cancel(operation, user=request.user)
        cancelled.version = operation.version  # read already
        return Response(OperationSerializer(cancelled).data)
