"""Lineages: their versions, the names that lead to them, the way back, and who was live when."""

from __future__ import annotations

from django.db.models import Count, Prefetch, QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from loaderd.errors import StateForbids, UnknownModel
from loaderd.version_order import version_key
from modelhub.api.pagination import BareListPagination
from modelhub.api.schema import PAGE_HEADERS, errors
from modelhub.api.serializers.lineages import (
    AliasSerializer,
    ComparisonSerializer,
    HistorySerializer,
    LineageDetailSerializer,
    LineageSerializer,
    SetAliasSerializer,
    SetTrafficSerializer,
    TrafficSerializer,
)
from modelhub.api.serializers.models import ModelSummarySerializer
from modelhub.api.serializers.operations import ActivatedSerializer, RollBackSerializer
from modelhub.api.serializers.plans import ActivatePlanSerializer
from modelhub.api.views.control import (
    ACCEPTED,
    COMMAND,
    accepted,
    activated,
    done_or_planned,
    prefers_async,
    wanted_of,
    without_gap,
)
from modelhub.api.views.strict import StrictViewSet, check_no_body
from modelhub.conf import config
from modelhub.lifecycle import planning, versions
from modelhub.lifecycle.observed import loader_view
from modelhub.lifecycle.permissions import ACTIVATE
from modelhub.registry.models import Alias, Model, ModelVersion
from modelhub.telemetry.queries import comparison_of

ALIAS = OpenApiParameter("alias", str, OpenApiParameter.PATH, description="candidate, or a name of your own.")

_ALIAS_COLUMNS = ("lineage_id", "name", "set_at", "set_by", "version__model_id", "version__version")


class LineageViewSet(StrictViewSet):
    queryset = Model.objects.prefetch_related(
        Prefetch("aliases", Alias.objects.select_related("version").only(*_ALIAS_COLUMNS))
    )
    serializer_class = LineageSerializer
    pagination_class = BareListPagination
    lookup_field = "name"
    lookup_value_regex = "[^/]+"
    paged_actions = frozenset({"list", "history"})
    permission_of_action = {
        "rollback": ACTIVATE,
        "set_alias": ACTIVATE,
        "remove_alias": ACTIVATE,
        "set_traffic": ACTIVATE,
    }

    def get_queryset(self) -> QuerySet[Model]:
        found: QuerySet[Model] = super().get_queryset()
        return found.annotate(version_count=Count("versions")).order_by("name")

    def get_object(self) -> Model:
        name = self.kwargs["name"]
        lineage = None if "\0" in name else self.get_queryset().filter(name=name).first()
        if lineage is None:
            raise NotFound(f"No lineage is named {name!r}; GET /api/lineages/ lists them.")
        self.check_object_permissions(self.request, lineage)
        return lineage

    @extend_schema(
        summary="All lineages",
        parameters=PAGE_HEADERS,
        responses={200: LineageSerializer(many=True), **errors(400)},
    )
    def list(self, request: Request) -> Response:
        page = self.paginate_queryset(self.get_queryset())
        return self.get_paginated_response(LineageSerializer(page, many=True).data)

    @extend_schema(summary="One lineage", responses={200: LineageDetailSerializer, **errors(404)})
    def retrieve(self, request: Request, name: str) -> Response:
        """With all its versions, and where a rollback would lead."""
        lineage = self.get_object()
        columns = ModelSummarySerializer.Meta.columns
        found = lineage.versions.select_related("lineage").prefetch_related("aliases").only(*columns)
        context = {
            "loader": loader_view(),
            "previous": versions.previous_live(lineage),
            "versions": sorted(found, key=lambda version: version_key(version.version), reverse=True),
        }
        return Response(LineageDetailSerializer(lineage, context=context).data)

    @extend_schema(
        summary="Go back to an earlier version",
        parameters=COMMAND,
        responses={
            200: done_or_planned("RollBackAnswer", ActivatedSerializer, ActivatePlanSerializer),
            202: ACCEPTED,
            **errors(400, 403, 404, 409, 504, 507),
        },
    )
    @action(detail=True, methods=["post"], serializer_class=RollBackSerializer)
    def rollback(self, request: Request, name: str) -> Response:
        """As an activation, toward the version that was live before, or `to`; the one it leaves is marked."""
        lineage = self.get_object()
        wanted = wanted_of(self, request)
        to = version_of(lineage, wanted["to"]) if wanted.get("to") else None
        if wanted["dry_run"]:
            plan = planning.plan_rollback(lineage, to or _before(lineage), allow_gap=wanted["allow_gap"])
            return Response(without_gap(plan, wanted["allow_gap"]))
        operation = versions.request_rollback(
            lineage,
            to=to,
            user=request.user,
            source="api",
            reason=wanted["reason"],
            allow_gap=wanted["allow_gap"],
        )
        if prefers_async(request):
            return accepted(operation)
        return Response(activated(operation))

    @extend_schema(
        summary="Who was live when, why, by whom",
        parameters=PAGE_HEADERS,
        responses={200: HistorySerializer, **errors(400, 404)},
    )
    @action(detail=True)
    def history(self, request: Request, name: str) -> Response:
        """The newest periods, API_LIST_LIMIT at most; the changes come in pages."""
        lineage = self.get_object()
        changes = self.paginate_queryset(lineage.changes.select_related("version", "previous").only(*_CHANGE_COLUMNS))
        told = {
            "lineage": lineage.name,
            "periods": versions.periods(lineage, limit=config().API_LIST_LIMIT),
            "changes": changes,
        }
        return self.get_paginated_response(HistorySerializer(told).data)

    @extend_schema(
        summary="The names that lead to versions",
        responses={200: AliasSerializer(many=True), **errors(404)},
    )
    @action(detail=True, pagination_class=None)
    def aliases(self, request: Request, name: str) -> Response:
        return Response(AliasSerializer(self.get_object().aliases.all(), many=True).data)

    @extend_schema(
        summary="Let a name lead to a version",
        parameters=[ALIAS],
        request=SetAliasSerializer,
        responses={200: AliasSerializer, **errors(400, 403, 404, 409)},
    )
    @action(detail=True, methods=["put"], url_path="aliases/(?P<alias>[^/]+)", serializer_class=SetAliasSerializer)
    def set_alias(self, request: Request, name: str, alias: str) -> Response:
        """Not `live`, which activate and rollback move."""
        lineage = self.get_object()
        wanted = wanted_of(self, request)
        version = version_of(lineage, wanted["model_id"])
        made = versions.set_alias(lineage, alias, version, user=request.user, reason=wanted["reason"])
        return Response(AliasSerializer(made).data)

    @extend_schema(
        summary="Take a name away",
        parameters=[ALIAS],
        request=None,
        responses={204: None, **errors(403, 404, 409)},
    )
    @set_alias.mapping.delete
    def remove_alias(self, request: Request, name: str, alias: str) -> Response:
        check_no_body(request)
        versions.remove_alias(self.get_object(), alias, user=request.user)
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(summary="Where requests go", responses={200: TrafficSerializer, **errors(404)})
    @action(detail=True, pagination_class=None, serializer_class=SetTrafficSerializer)
    def traffic(self, request: Request, name: str) -> Response:
        return Response(TrafficSerializer(self.get_object()).data)

    @extend_schema(
        summary="Send a share of the requests, or a copy of them, to the candidate",
        request=SetTrafficSerializer,
        responses={200: TrafficSerializer, **errors(400, 403, 404, 409)},
    )
    @traffic.mapping.put
    def set_traffic(self, request: Request, name: str) -> Response:
        """Needs the alias `candidate`. Begins a new comparison."""
        lineage = self.get_object()
        wanted = wanted_of(self, request)
        versions.set_traffic(
            lineage,
            candidate_percent=wanted.get("candidate_percent"),
            shadow=wanted.get("shadow"),
            user=request.user,
            reason=wanted["reason"],
        )
        return Response(TrafficSerializer(self.get_object()).data)

    @extend_schema(summary="Live and candidate side by side", responses={200: ComparisonSerializer, **errors(404)})
    @action(detail=True, pagination_class=None)
    def comparison(self, request: Request, name: str) -> Response:
        """Latency, error rate and disagreement since the traffic was set. 404 before anything was compared."""
        lineage = self.get_object()
        found = comparison_of(lineage)
        if found is None:
            raise NotFound(f"Nothing was compared in {lineage.name} yet; PUT a split or a shadow to its traffic first.")
        return Response(ComparisonSerializer(found).data)


_CHANGE_COLUMNS = (
    "at", "kind", "alias", "reason", "actor", "operation_id", "details", "lineage_id", "version__model_id",
    "previous__model_id",
)  # fmt: skip


def _before(lineage: Model) -> ModelVersion:
    """Where a rollback leads that names no version; raises StateForbids."""
    version = versions.previous_live(lineage)
    if version is None:
        raise StateForbids(f"No other version of {lineage.name} was live before; name one with `to`.")
    return version


def version_of(lineage: Model, model_id: str) -> ModelVersion:
    """The version of this lineage with that id; raises UnknownModel."""
    version = None if "\0" in model_id else lineage.versions.select_related("lineage").filter(model_id=model_id).first()
    if version is None:
        raise UnknownModel(
            f"{lineage.name} has no version with the id {model_id!r}; GET /api/lineages/{lineage.name} lists them.",
            model_id=model_id,
        )
    return version
