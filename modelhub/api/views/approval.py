"""Approval of artifacts whose format can run code."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from modelhub.api.schema import errors
from modelhub.api.serializers.registry import ApprovalSerializer, ApproveSerializer
from modelhub.api.views.strict import check_no_body
from modelhub.registry.approval import approve, revoke


class ApprovalActions:
    @extend_schema(
        summary="Approve exactly these bytes",
        responses={200: ApprovalSerializer, **errors(400, 403, 404, 409)},
    )
    @action(detail=True, methods=["post"], serializer_class=ApproveSerializer)
    def approve(self, request: Request, model_id: str) -> Response:
        """For formats that can run code; other bytes need another approval."""
        version = self.get_object()  # type: ignore[attr-defined]
        serializer = self.get_serializer(data=request.data)  # type: ignore[attr-defined]
        serializer.is_valid(raise_exception=True)
        approve(version, request.user, serializer.validated_data.get("digest"))
        return Response(ApprovalSerializer(version).data)

    @extend_schema(
        summary="Take the approval back",
        request=None,
        responses={200: ApprovalSerializer, **errors(403, 404)},
    )
    @approve.mapping.delete
    def revoke_approval(self, request: Request, model_id: str) -> Response:
        """A loaded model stays loaded; the next load is refused."""
        version = self.get_object()  # type: ignore[attr-defined]
        check_no_body(request)
        revoke(version, request.user)
        return Response(ApprovalSerializer(version).data)
