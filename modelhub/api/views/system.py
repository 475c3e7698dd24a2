"""The addresses under /api/models/ that speak of all models: health, metrics, memory, discovery."""

from __future__ import annotations

import time
from typing import Any

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.viewsets import GenericViewSet

from loaderd.errors import LoaderUnreachable, StateForbids
from modelhub.api import overview
from modelhub.api.fields import mebibytes
from modelhub.api.schema import errors
from modelhub.api.serializers.registry import DiscoverySerializer
from modelhub.api.serializers.system import HealthSerializer, MetricsSerializer, OptimizedSerializer
from modelhub.api.waiting import wait_for_end
from modelhub.lifecycle.actions import request_unload
from modelhub.lifecycle.models import Operation, OperationStatus
from modelhub.lifecycle.observed import loader_view
from modelhub.registry.choices import DesiredState, Status
from modelhub.registry.discovery import discover
from modelhub.registry.models import DiscoveryRun, ModelVersion


class SystemViewSet(GenericViewSet):
    """Its names shadow models that are called health, metrics, optimize-memory or discover."""

    serializer_class = Serializer
    queryset = ModelVersion.objects.none()
    permission_of_action = {
        "optimize_memory": "registry.unload_modelversion",
        "discover": "registry.discover_modelversion",
    }

    @extend_schema(summary="Health of the system", responses={200: HealthSerializer, **errors()})
    @action(detail=False, pagination_class=None)
    def health(self, request: Request) -> Response:
        """Always 200: an answer, not a probe."""
        return Response(HealthSerializer(overview.health(loader_view())).data)

    @extend_schema(summary="Metrics of the system", responses={200: MetricsSerializer, **errors()})
    @action(detail=False, pagination_class=None)
    def metrics(self, request: Request) -> Response:
        """docs/api.md has the formulas."""
        return Response(MetricsSerializer(overview.metrics(loader_view())).data)

    @extend_schema(
        summary="Free memory: unload what is loaded and should not be",
        request=None,
        responses={200: OptimizedSerializer, **errors(403)},
    )
    @action(detail=False, methods=["post"], url_path="optimize-memory")
    def optimize_memory(self, request: Request) -> Response:
        """Nothing that should be loaded is evicted; policies come with the lifecycle release."""
        began = time.monotonic()
        if not loader_view().reachable:
            raise LoaderUnreachable("loaderd is away, so nothing can be unloaded; start it with `make up`.")
        leftovers = ModelVersion.objects.filter(status=Status.LOADED, desired_state=DesiredState.UNLOADED)
        asked = [(version, _ask_to_unload(version, request.user)) for version in leftovers]
        ended = [wait_for_end(operation, version) for version, operation in asked if operation is not None]
        done = [operation for operation in ended if operation.status == OperationStatus.SUCCEEDED]
        freed_bytes = sum((operation.result or {}).get("freed_bytes") or 0 for operation in done)
        return Response(
            {
                "status": "completed" if len(done) == len(asked) else "incomplete",
                "memory_freed_mb": mebibytes(freed_bytes),
                "models_unloaded": sum((operation.result or {}).get("status") == "unloaded" for operation in done),
                "optimization_time_ms": round((time.monotonic() - began) * 1000),
            }
        )

    @extend_schema(
        summary="The last discovery and what it found",
        responses={200: DiscoverySerializer, **errors(404)},
    )
    @action(detail=False, url_path="discover", pagination_class=None)
    def last_discovery(self, request: Request) -> Response:
        """404 before the first one."""
        run = DiscoveryRun.objects.first()
        if run is None:
            raise NotFound("No discovery has run yet; POST here to run one.")
        return Response(DiscoverySerializer(run).data)

    @extend_schema(
        summary="Look through the store for new, changed and gone models",
        request=None,
        responses={200: OpenApiResponse(DiscoverySerializer, description="What was found."), **errors(403)},
    )
    @last_discovery.mapping.post
    def discover(self, request: Request, **kwargs: Any) -> Response:
        """Waits until all is read; one model that is refused does not keep the others."""
        discover(actor=request.user.get_username())
        return Response(DiscoverySerializer(DiscoveryRun.objects.first()).data)


def _ask_to_unload(version: ModelVersion, user: Any) -> Operation | None:
    """The operation, or None when the model is asked for again meanwhile."""
    try:
        return request_unload(version, user=user, source="api", reason="memory optimisation")
    except StateForbids:
        return None
