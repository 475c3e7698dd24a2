"""The addresses under /api/models/ that speak of all models: health, metrics, memory, discovery."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer

from loaderd.states import ModelState
from modelhub.api import overview
from modelhub.api.fields import mebibytes
from modelhub.api.schema import errors
from modelhub.api.serializers.operations import CommandSerializer
from modelhub.api.serializers.plans import OptimizePlanSerializer
from modelhub.api.serializers.registry import DiscoverySerializer
from modelhub.api.serializers.system import (
    HealthSerializer,
    MetricsSerializer,
    OptimizedSerializer,
    UnusedQuerySerializer,
    UnusedSerializer,
)
from modelhub.api.views.control import ACCEPTED, COMMAND, accepted, done_or_planned, prefers_async, wanted_of
from modelhub.api.views.strict import StrictViewSet, check_no_body
from modelhub.api.waiting import result_of, wait_for_end
from modelhub.lifecycle import planning
from modelhub.lifecycle.observed import effective_status, loader_view
from modelhub.lifecycle.optimising import find_unused, request_optimize
from modelhub.registry.discovery import discover
from modelhub.registry.models import DiscoveryRun, ModelVersion


class SystemViewSet(StrictViewSet):
    """Its names shadow models that are called health, metrics, optimize-memory, unused or discover."""

    serializer_class = Serializer
    queryset = ModelVersion.objects.none()
    query_of_action = {"unused": UnusedQuerySerializer}
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
        summary="Free memory: unload what nobody needs",
        parameters=COMMAND,
        responses={
            200: done_or_planned("OptimizeAnswer", OptimizedSerializer, OptimizePlanSerializer),
            202: ACCEPTED,
            **errors(400, 403, 504),
        },
    )
    @action(detail=False, methods=["post"], url_path="optimize-memory", serializer_class=CommandSerializer)
    def optimize_memory(self, request: Request) -> Response:
        """Unloads what is unused or little used, never what is pinned, busy or just loaded; tells what came back."""
        wanted = wanted_of(self, request)
        if wanted["dry_run"]:
            return Response(planning.plan_optimize())
        operation = request_optimize(user=request.user, source="api", reason=wanted["reason"])
        if prefers_async(request):
            return accepted(operation)
        return Response(optimized(result_of(wait_for_end(operation, None), None)))

    @extend_schema(
        summary="Loaded models that nobody asked lately, the longest unused first",
        parameters=[UnusedQuerySerializer],
        responses={200: UnusedSerializer(many=True), **errors(400)},
    )
    @action(detail=False, pagination_class=None)
    def unused(self, request: Request) -> Response:
        """Pinned ones too: an optimisation leaves those, a person may not."""
        loader = loader_view()
        found = find_unused(self.asked().get("hours"))
        held = [version for version in found if effective_status(version, loader) == ModelState.LOADED]
        return Response(UnusedSerializer(held, many=True).data)

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
        check_no_body(request)
        discover(actor=request.user.get_username())
        return Response(DiscoverySerializer(DiscoveryRun.objects.first()).data)


def optimized(result: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of an optimisation, from its operation's result."""
    unloaded = result.get("unloaded") or []
    return {
        "status": result.get("status", "completed"),
        "memory_freed_mb": mebibytes(result.get("freed_bytes") or 0),
        "models_unloaded": len(unloaded),
        "optimization_time_ms": round((result.get("seconds") or 0.0) * 1000),
        "unloaded": unloaded,
    }
