"""The settings that change while Modelhub runs: what is in force, where it comes from, and who changed what."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from modelhub.api.pagination import BareListPagination
from modelhub.api.schema import PAGE_HEADERS, errors
from modelhub.api.serializers.policy import OverridesSerializer, PolicyChangeSerializer, SettingSerializer
from modelhub.api.views.strict import StrictViewSet
from modelhub.lifecycle.observed import loader_view
from modelhub.lifecycle.settings import settings_in_force
from modelhub.policy.effective import change
from modelhub.policy.models import PolicyChange


class PolicyViewSet(StrictViewSet):
    queryset = PolicyChange.objects.all()
    serializer_class = OverridesSerializer
    pagination_class = BareListPagination
    paged_actions = frozenset({"changes"})
    permission_of_action = {"partial_update": "policy.change_policy"}

    @extend_schema(
        summary="Settings that change at run time", responses={200: SettingSerializer(many=True), **errors()}
    )
    def retrieve(self, request: Request) -> Response:
        """What counts, where that comes from, and what loaderd said it works by."""
        return Response(SettingSerializer(settings_in_force(loader_view()), many=True).data)

    @extend_schema(
        summary="Change settings",
        request=OverridesSerializer,
        responses={200: SettingSerializer(many=True), **errors(400, 403)},
    )
    def partial_update(self, request: Request) -> Response:
        """Counts within a second, without a restart. `null` takes back what the policy says."""
        serializer = self.get_serializer(data=request.data, partial=True)
        serializer.is_valid(raise_exception=True)
        try:
            change(serializer.validated_data, user=request.user)
        except ValidationError as error:
            raise serializers.ValidationError(_by_setting(error)) from error
        return self.retrieve(request)

    @extend_schema(
        summary="Changes of settings, newest first",
        parameters=PAGE_HEADERS,
        responses={200: PolicyChangeSerializer(many=True), **errors(400)},
    )
    def changes(self, request: Request) -> Response:
        page = self.paginate_queryset(self.get_queryset())
        return self.get_paginated_response(PolicyChangeSerializer(page, many=True).data)


def _by_setting(error: ValidationError) -> dict[str, Any]:
    """The messages by the names that the client used: the policy's fields are the settings in small letters."""
    return {name.upper() if name != "__all__" else name: messages for name, messages in error.message_dict.items()}
