"""Load, unload and activate: ask for it, then wait for its end or answer at once, as the client prefers (RFC 7240)."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, PolymorphicProxySerializer, extend_schema
from rest_framework import serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse
from rest_framework.serializers import Serializer

from loaderd.scheduler import Decision
from modelhub.api.fields import mebibytes
from modelhub.api.schema import errors
from modelhub.api.serializers.operations import (
    ActivatedSerializer,
    ActivateSerializer,
    CommandSerializer,
    LoadedSerializer,
    OperationSerializer,
    UnloadedSerializer,
)
from modelhub.api.serializers.plans import ActivatePlanSerializer, LoadPlanSerializer, UnloadPlanSerializer
from modelhub.api.waiting import result_of, wait_for_end
from modelhub.lifecycle import planning
from modelhub.lifecycle.actions import request_load, request_unload
from modelhub.lifecycle.models import Operation
from modelhub.lifecycle.versions import request_activate

DRY_RUN = OpenApiParameter("dry_run", bool, description="Answer the plan and change nothing.")
COMMAND = [
    DRY_RUN,
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


def done_or_planned(name: str, *answers: type[Serializer]) -> PolymorphicProxySerializer:
    """The body of a 200: what was done, or with dry_run what would be."""
    return PolymorphicProxySerializer(name, answers, resource_type_field_name=None)


class ControlActions:
    @extend_schema(
        summary="Load a model",
        parameters=COMMAND,
        responses={
            200: done_or_planned("LoadAnswer", LoadedSerializer, LoadPlanSerializer),
            202: ACCEPTED,
            **errors(400, 403, 404, 409, 504, 507),
        },
    )
    @action(detail=True, methods=["post"], serializer_class=CommandSerializer)
    def load(self, request: Request, model_id: str) -> Response:
        """Answers when the model does, or at once with `Prefer: respond-async`."""
        version = self.get_object()  # type: ignore[attr-defined]
        wanted = wanted_of(self, request)
        if wanted["dry_run"]:
            return Response(planning.plan_load(version))
        operation = request_load(version, user=request.user, source="api", reason=wanted["reason"])
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
        parameters=COMMAND,
        responses={
            200: done_or_planned("UnloadAnswer", UnloadedSerializer, UnloadPlanSerializer),
            202: ACCEPTED,
            **errors(400, 403, 404, 409, 504),
        },
    )
    @action(detail=True, methods=["post"], serializer_class=CommandSerializer)
    def unload(self, request: Request, model_id: str) -> Response:
        """Answers when the process is gone, or at once with `Prefer: respond-async`."""
        version = self.get_object()  # type: ignore[attr-defined]
        wanted = wanted_of(self, request)
        if wanted["dry_run"]:
            return Response(planning.plan_unload(version))
        operation = request_unload(version, user=request.user, source="api", reason=wanted["reason"])
        if prefers_async(request):
            return accepted(operation)
        result = result_of(wait_for_end(operation, version), version)
        return Response({"model_id": version.model_id, "status": result.get("status", "unloaded")})

    @extend_schema(
        summary="Make a version the live one of its lineage",
        parameters=COMMAND,
        responses={
            200: done_or_planned("ActivateAnswer", ActivatedSerializer, ActivatePlanSerializer),
            202: ACCEPTED,
            **errors(400, 403, 404, 409, 504, 507),
        },
    )
    @action(detail=True, methods=["post"], serializer_class=ActivateSerializer)
    def activate(self, request: Request, model_id: str) -> Response:
        """Loads it beside the live one, moves the alias `live`, then drains and unloads the one before."""
        version = self.get_object()  # type: ignore[attr-defined]
        wanted = wanted_of(self, request)
        if wanted["dry_run"]:
            plan = planning.plan_activate(version, allow_gap=wanted["allow_gap"])
            return Response(without_gap(plan, wanted["allow_gap"]))
        operation = request_activate(
            version, user=request.user, source="api", reason=wanted["reason"], allow_gap=wanted["allow_gap"]
        )
        if prefers_async(request):
            return accepted(operation)
        return Response(activated(operation))


def without_gap(plan: dict[str, Any], is_gap_allowed: bool) -> dict[str, Any]:
    """The plan of an activation or rollback, refused as the command is where it needs a gap that nobody allowed, with
    what could be done."""
    if is_gap_allowed or not plan.get("needs_gap"):
        return plan
    sentence = (
        f"{plan['model_id']} does not fit beside {plan['replaces']}, which is live; with allow_gap that one is "
        f"unloaded first, and requests wait until the other is loaded. {plan['sentence']}"
    )
    return {**plan, "decision": str(Decision.REFUSED), "sentence": sentence}


def wanted_of(view: Any, request: Request) -> dict[str, Any]:
    """The body, checked; `reason` is always there, and `dry_run` also counts as a query parameter."""
    serializer = view.get_serializer(data=request.data)
    serializer.is_valid(raise_exception=True)
    values = {"reason": "", **serializer.validated_data}
    values["dry_run"] = values.get("dry_run", False) or _asks_for_dry_run(request)
    return values


def _asks_for_dry_run(request: Request) -> bool:
    text = request.query_params.get("dry_run")
    if text is None:
        return False
    try:
        return bool(serializers.BooleanField().run_validation(text))
    except serializers.ValidationError as error:
        raise serializers.ValidationError({"dry_run": error.detail}) from None


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


def activated(operation: Operation) -> dict[str, Any]:
    """What an activation or a rollback brought, when it has ended; raises its error."""
    version = operation.version
    result = result_of(wait_for_end(operation, version), version)
    return {
        "model_id": version.model_id,
        "lineage": version.lineage.name,
        "status": result.get("status", "live"),
        "previous": result.get("previous"),
        "load_time": result.get("load_seconds"),
        "memory_freed_mb": mebibytes(result.get("freed_bytes")),
        "gap_seconds": result.get("gap_seconds"),
    }
