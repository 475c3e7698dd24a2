"""Forgetting a recorded canary."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from modelhub.api.schema import errors
from modelhub.api.serializers.operations import ReasonSerializer
from modelhub.api.serializers.registry import ForgottenCanarySerializer
from modelhub.api.views.control import wanted_of
from modelhub.lifecycle.canaries import forget_canary


class CanaryActions:
    @extend_schema(
        summary="Forget the recorded canary",
        responses={200: ForgottenCanarySerializer, **errors(400, 403, 404, 409)},
    )
    @action(detail=True, methods=["post"], url_path="forget-canary", serializer_class=ReasonSerializer)
    def forget_canary(self, request: Request, model_id: str) -> Response:
        """The next load records a new one. 409 when none is recorded, or when metadata.json declares it."""
        version = self.get_object()  # type: ignore[attr-defined]
        return Response(forget_canary(version, user=request.user, reason=wanted_of(self, request)["reason"]))
