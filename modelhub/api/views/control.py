"""Load and unload: ask for it, then wait for its end or answer at once, as the client prefers (RFC 7240)."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from loaderd.errors import Cancelled, ModelTimeout, from_message
from modelhub.api.fields import mebibytes
from modelhub.api.schema import errors
from modelhub.api.serializers.operations import (
    LoadedSerializer,
    OperationSerializer,
    ReasonSerializer,
    UnloadedSerializer,
)
from modelhub.api.waiting import wait_for_end
from modelhub.lifecycle.actions import request_load, request_unload
from modelhub.lifecycle.models import Operation, OperationStatus
from modelhub.registry.artifacts import load_limit_seconds
from modelhub.registry.models import ModelVersion

PREFER = [
    OpenApiParameter(
        "Prefer",
        str,
        OpenApiParameter.HEADER,
        description="`respond-async`: answer 202 at once.",
        enum=["respond-async"],
    ),
    OpenApiParameter("Location", str, OpenApiParameter.HEADER, response=[202], description="The operation."),
    OpenApiParameter("Preference-Applied", str, OpenApiParameter.HEADER, response=[202], description="respond-async"),
]
ACCEPTED = OpenApiResponse(OperationSerializer, description="Accepted; Location tells where to follow it.")


class ControlActions:
    @extend_schema(
        summary="Load a model",
        parameters=PREFER,
        responses={200: LoadedSerializer, 202: ACCEPTED, **errors(400, 403, 404, 409, 504, 507)},
    )
    @action(detail=True, methods=["post"], serializer_class=ReasonSerializer)
    def load(self, request: Request, model_id: str) -> Response:
        """Answers when the model does, or at once with `Prefer: respond-async`."""
        version = self.get_object()  # type: ignore[attr-defined]
        operation = request_load(version, user=request.user, source="api", reason=self._reason(request))
        if prefers_async(request):
            return accepted(operation)
        result = result_of(wait_for_end(operation, version), version)
        return Response(
            {
                "model_id": version.model_id,
                "status": "loaded",
                "load_time": result.get("load_seconds"),
                "memory_usage": mebibytes(result.get("private_bytes")),
            }
        )

    @extend_schema(
        summary="Unload a model",
        parameters=PREFER,
        responses={200: UnloadedSerializer, 202: ACCEPTED, **errors(400, 403, 404, 409, 504)},
    )
    @action(detail=True, methods=["post"], serializer_class=ReasonSerializer)
    def unload(self, request: Request, model_id: str) -> Response:
        """Answers when the process is gone, or at once with `Prefer: respond-async`."""
        version = self.get_object()  # type: ignore[attr-defined]
        operation = request_unload(version, user=request.user, source="api", reason=self._reason(request))
        if prefers_async(request):
            return accepted(operation)
        result = result_of(wait_for_end(operation, version), version)
        return Response({"model_id": version.model_id, "status": result.get("status", "unloaded")})

    def _reason(self, request: Request) -> str:
        serializer = self.get_serializer(data=request.data)  # type: ignore[attr-defined]
        serializer.is_valid(raise_exception=True)
        return str(serializer.validated_data.get("reason", ""))


def prefers_async(request: Request) -> bool:
    """Whether a Prefer header asks for `respond-async`; other preferences are ignored, as RFC 7240 wants."""
    preferences = request.headers.get("Prefer", "").lower().split(",")
    return any(preference.split(";")[0].strip() == "respond-async" for preference in preferences)


def accepted(operation: Operation) -> Response:
    return Response(
        OperationSerializer(operation).data,
        status=status.HTTP_202_ACCEPTED,
        headers={
            "Location": reverse("operation-detail", kwargs={"operation_id": operation.id}),
            "Preference-Applied": "respond-async",
        },
    )


def result_of(operation: Operation, version: ModelVersion) -> dict[str, Any]:
    """What a succeeded operation brought; raises the error of one that failed, and ModelTimeout of one that runs on."""
    facts = {"model_id": version.model_id, "operation": str(operation.id)}
    if operation.status == OperationStatus.SUCCEEDED:
        return operation.result or {}
    if operation.status == OperationStatus.CANCELLED:
        raise Cancelled(
            f"The {operation.kind} of {version.model_id} was cancelled; ask again if it is wanted.", **facts
        )
    if operation.status == OperationStatus.FAILED and operation.error:
        error = from_message(operation.error)
        error.facts = {**error.facts, **facts}
        raise error
    raise ModelTimeout(
        f"The {operation.kind} of {version.model_id} is still {operation.status} after "
        f"{load_limit_seconds(version):g} seconds and goes on; follow or cancel it at "
        f"{reverse('operation-detail', kwargs={'operation_id': operation.id})}.",
        **facts,
    )
