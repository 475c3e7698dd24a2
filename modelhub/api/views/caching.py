"""Forgetting what the response cache keeps."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer

from modelhub.api.schema import errors
from modelhub.api.serializers.caching import ClearedCacheSerializer
from modelhub.api.views.strict import StrictViewSet, check_no_body
from modelhub.lifecycle.kept_answers import CLEAR, clear_cache
from modelhub.registry.models import ModelVersion


class CacheActions:
    @extend_schema(
        summary="Forget the kept answers of a model",
        request=None,
        responses={200: ClearedCacheSerializer, **errors(403, 404)},
    )
    @action(detail=True, methods=["post"], url_path="clear-cache", serializer_class=Serializer)
    def clear_cache(self, request: Request, model_id: str) -> Response:
        """They are computed again when they are asked for."""
        version = self.get_object()  # type: ignore[attr-defined]
        check_no_body(request)
        return Response(ClearedCacheSerializer(clear_cache(version, user=request.user)).data)


class CacheViewSet(StrictViewSet):
    queryset = ModelVersion.objects.none()
    serializer_class = ClearedCacheSerializer
    pagination_class = None
    permission_of_action = {"clear": CLEAR}

    @extend_schema(
        summary="Forget the kept answers of all models",
        request=None,
        responses={200: ClearedCacheSerializer, **errors(403)},
    )
    def clear(self, request: Request) -> Response:
        """They are computed again when they are asked for."""
        check_no_body(request)
        return Response(ClearedCacheSerializer(clear_cache(None, user=request.user)).data)
