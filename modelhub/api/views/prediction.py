"""Predictions through the API; for many of them use the inference door, which needs no Django."""

from __future__ import annotations

from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from modelhub.api.schema import errors
from modelhub.api.serializers.prediction import PredictionsSerializer, PredictSerializer
from modelhub.inference import client


class PredictActions:
    @extend_schema(
        summary="Predict with a loaded model",
        request=PredictSerializer,
        responses={200: PredictionsSerializer, **errors(400, 403, 404, 409, 413, 429, 504, 507)},
        examples=[
            OpenApiExample("texts", {"inputs": ["I love it", "Never again"]}, request_only=True),
            OpenApiExample("rows", {"inputs": [[5.1, 3.5, 1.4, 0.2]]}, request_only=True),
        ],
    )
    @action(detail=True, methods=["post"], serializer_class=PredictSerializer)
    def predict(self, request: Request, model_id: str) -> Response:
        """`model_id` may be a lineage's name: its live version answers, or the candidate's share does.

        Asks loaderd's door and nobody else: the registry is not read. A model that loads on demand is waited for.
        """
        serializer = self.get_serializer(data=request.data)  # type: ignore[attr-defined]
        serializer.is_valid(raise_exception=True)
        answer = client.predict(
            model_id,
            serializer.validated_data["inputs"],
            user=request.user.get_username(),
            timeout_seconds=client.time_limit_seconds(),
            trace=client.trace_of(request.headers),
        )
        return Response(answer)
