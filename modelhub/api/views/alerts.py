"""Alerts: what needs a person's eye, and that somebody has seen it."""

from __future__ import annotations

from typing import Any, cast

from django.db.models import Q, QuerySet
from django.http import Http404
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from modelhub.api.pagination import BareListPagination
from modelhub.api.schema import PAGE_HEADERS, errors
from modelhub.api.serializers.alerts import AlertQuerySerializer, AlertSerializer
from modelhub.api.views.strict import StrictViewSet, check_no_body
from modelhub.telemetry.alerts import ACKNOWLEDGE_PERMISSION, acknowledge, alerts
from modelhub.telemetry.models import Alert

_STATES = {
    "open": Q(resolved_at=None, acknowledged_at=None),
    "acknowledged": Q(resolved_at=None, acknowledged_at__isnull=False),
    "unresolved": Q(resolved_at=None),
    "resolved": Q(resolved_at__isnull=False),
}


@extend_schema_view(
    list=extend_schema(
        summary="Alerts, newest first",
        parameters=[AlertQuerySerializer, *PAGE_HEADERS],
        responses={200: AlertSerializer(many=True), **errors(400)},
    ),
    retrieve=extend_schema(summary="One alert", responses={200: AlertSerializer, **errors(404)}),
)
class AlertViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, StrictViewSet):
    """Opened and resolved by loaderd, acknowledged by people; METRICS_RETENTION_DAYS after its end one is deleted."""

    queryset = Alert.objects.none()
    serializer_class = AlertSerializer
    pagination_class = BareListPagination
    lookup_field = "pk"
    lookup_url_kwarg = "alert_id"
    lookup_value_regex = "[0-9]{1,18}"
    query_of_action = {"list": AlertQuerySerializer}
    permission_of_action = {"acknowledge": ACKNOWLEDGE_PERMISSION}

    def get_queryset(self) -> QuerySet[Alert]:
        found = alerts()
        if self.action != "list":
            return found
        query = self.asked()
        if "state" in query:
            found = found.filter(_STATES[query["state"]])
        if "kind" in query:
            found = found.filter(kind=query["kind"])
        if "model" in query:
            found = found.filter(version__model_id=query["model"])
        return found

    def get_object(self) -> Alert:
        try:
            return cast(Alert, super().get_object())
        except Http404:
            told = f"No alert has the id {self.kwargs['alert_id']}; GET /api/alerts/ lists them."
            raise NotFound(told) from None

    @extend_schema(
        summary="Say that somebody has seen it",
        request=None,
        responses={200: AlertSerializer, **errors(403, 404, 409)},
    )
    @action(detail=True, methods=["post"], serializer_class=serializers.Serializer)
    def acknowledge(self, request: Request, **kwargs: Any) -> Response:
        """It stays until loaderd resolves it. Who acknowledged first is kept; 409 when it is resolved."""
        check_no_body(request)
        return Response(AlertSerializer(acknowledge(self.get_object(), user=request.user)).data)
