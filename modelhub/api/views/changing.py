"""What all views hold to that change something: a dry run which is asked for is never carried out."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.viewsets import GenericViewSet

from modelhub.api.serializers.body import NoBodySerializer

# Actions that answer a plan; every other one would do what it was asked not to do.
PLANNED = frozenset({"load", "unload", "activate", "rollback", "optimize_memory"})


class ChangingViewSet(GenericViewSet):
    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if request.method not in SAFE_METHODS and "dry_run" in request.query_params and self.action not in PLANNED:
            raise serializers.ValidationError({"dry_run": ["There is no dry run of this; nothing was changed."]})


def check_no_body(request: Request) -> None:
    """Raises ValidationError when a request that needs no body has one with fields: they would be passed over."""
    NoBodySerializer(data=request.data).is_valid(raise_exception=True)
