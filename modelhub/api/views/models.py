"""The models: list, detail, policy, performance, history; and what can be done with one."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from loaderd.errors import UnknownModel
from modelhub.api.auditing import record_change
from modelhub.api.pagination import BareListPagination
from modelhub.api.schema import PAGE_HEADERS, errors
from modelhub.api.serializers.model_policy import ModelPolicySerializer
from modelhub.api.serializers.models import ModelDetailSerializer, ModelSummarySerializer, StateChangeSerializer
from modelhub.api.serializers.performance import PerformanceSerializer, SampleSerializer
from modelhub.api.serializers.queries import ModelQuerySerializer, narrowed_models
from modelhub.api.views.approval import ApprovalActions
from modelhub.api.views.caching import CacheActions
from modelhub.api.views.canary import CanaryActions
from modelhub.api.views.control import ControlActions
from modelhub.api.views.prediction import PredictActions
from modelhub.api.views.strict import StrictViewSet
from modelhub.api.windows import SECONDS_OF, WindowQuerySerializer
from modelhub.lifecycle import versions
from modelhub.lifecycle.canaries import FORGET
from modelhub.lifecycle.kept_answers import CLEAR
from modelhub.lifecycle.models import StateChange
from modelhub.lifecycle.observed import loader_view
from modelhub.policy.effective import notify_rules_changed
from modelhub.registry.models import ModelVersion
from modelhub.telemetry import queries


class ModelViewSet(ControlActions, PredictActions, ApprovalActions, CanaryActions, CacheActions, StrictViewSet):
    queryset = ModelVersion.objects.select_related("lineage").defer(*ModelDetailSerializer.Meta.deferred)
    serializer_class = ModelDetailSerializer
    pagination_class = BareListPagination
    lookup_field = "model_id"
    lookup_value_regex = "[^/]+"
    query_of_action = {
        "list": ModelQuerySerializer,
        "performance": WindowQuerySerializer,
        "samples": WindowQuerySerializer,
    }
    paged_actions = frozenset({"list", "state_changes"})
    permission_of_action = {
        "partial_update": "registry.change_modelversion",
        "load": "registry.load_modelversion",
        "unload": "registry.unload_modelversion",
        "activate": "registry.activate_modelversion",
        "predict": "registry.predict_modelversion",
        "approve": "registry.approve_modelversion",
        "revoke_approval": "registry.approve_modelversion",
        "forget_canary": FORGET,
        "clear_cache": CLEAR,
    }

    def get_object(self) -> ModelVersion:
        model_id = self.kwargs["model_id"]
        # Postgres takes no NUL in a text, so no model can have one in its id.
        if "\0" in model_id:
            raise UnknownModel(f"No model has the id {model_id!r}; GET /api/models/ lists those that are registered.")
        version = self.get_queryset().filter(model_id=model_id).first()
        if version is None:
            # A lineage's name means its live version here; raises UnknownModel.
            version = self.get_queryset().get(pk=versions.named(model_id).pk)
        self.check_object_permissions(self.request, version)
        return version

    @extend_schema(
        summary="All models",
        parameters=[ModelQuerySerializer, *PAGE_HEADERS],
        responses={200: ModelSummarySerializer(many=True), **errors(400)},
    )
    def list(self, request: Request) -> Response:
        """A bare list of at most API_LIST_LIMIT models; the headers Link and X-Total-Count tell of more."""
        query = self.asked()
        models = ModelVersion.objects.select_related("lineage").only(*ModelSummarySerializer.Meta.columns)
        loader = loader_view()
        page = self.paginate_queryset(narrowed_models(models.prefetch_related("aliases"), query, loader))
        context = {"loader": loader, "include_loaded": query["include_loaded"]}
        return self.get_paginated_response(ModelSummarySerializer(page, many=True, context=context).data)

    @extend_schema(summary="One model", responses={200: ModelDetailSerializer, **errors(404)})
    def retrieve(self, request: Request, model_id: str) -> Response:
        """The registered artifact, what is observed of it, and how it was used."""
        return self._detail(self.get_object())

    @extend_schema(
        summary="Set a model's policy and limits",
        request=ModelPolicySerializer,
        responses={200: ModelDetailSerializer, **errors(400, 403, 404)},
    )
    def partial_update(self, request: Request, model_id: str) -> Response:
        """pinned, priority, autoload, keep_alive_seconds, cache_enabled and cache_ttl_seconds count within a second,
        the rest from the next load on."""
        version = self.get_object()
        serializer = ModelPolicySerializer(version, data=request.data, partial=True)
        serializer.is_valid(raise_exception=True)
        # Only these columns: loaderd's reporter writes others of this row at the same time.
        with transaction.atomic():
            ModelVersion.objects.filter(pk=version.pk).update(**serializer.validated_data)
            record_change(version, serializer.validated_data, request.user)
            notify_rules_changed()
        return self._detail(self.get_object())

    @extend_schema(
        summary="A model's performance",
        parameters=[WindowQuerySerializer],
        responses={200: PerformanceSerializer, **errors(400, 404)},
    )
    @action(detail=True, pagination_class=None)
    def performance(self, request: Request, model_id: str) -> Response:
        """docs/api.md has the formulas."""
        window = self.asked()["window"]
        version = self.get_object()
        context = {"loader": loader_view(), "summary": queries.summary(version, SECONDS_OF[window])}
        return Response(PerformanceSerializer(version, context=context).data)

    @extend_schema(
        summary="The course of a model's figures, oldest first",
        parameters=[WindowQuerySerializer],
        responses={200: SampleSerializer(many=True), **errors(400, 404)},
    )
    @action(detail=True, pagination_class=None)
    def samples(self, request: Request, model_id: str) -> Response:
        """At most 120 steps up to now, for a chart."""
        window = self.asked()["window"]
        return Response(SampleSerializer(queries.series(self.get_object(), SECONDS_OF[window]), many=True).data)

    @extend_schema(
        summary="A model's history, newest first",
        parameters=PAGE_HEADERS,
        responses={200: StateChangeSerializer(many=True), **errors(400, 404)},
    )
    @action(detail=True, url_path="state-changes")
    def state_changes(self, request: Request, model_id: str) -> Response:
        """Every move of the model: from, to, why, who, when."""
        changes: QuerySet[StateChange] = self.get_object().state_changes.all()
        return self.get_paginated_response(StateChangeSerializer(self.paginate_queryset(changes), many=True).data)

    def _detail(self, version: ModelVersion) -> Response:
        return Response(ModelDetailSerializer(version, context={"loader": loader_view()}).data)

    def get_serializer_class(self) -> Any:
        # What the browsable API draws its form from.
        return (
            ModelPolicySerializer if self.action in ("partial_update", "retrieve") else super().get_serializer_class()
        )
