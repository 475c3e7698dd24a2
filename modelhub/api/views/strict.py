"""What all views hold to: what a request says and nobody here understands is refused, never passed over in silence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from rest_framework import serializers
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.serializers import Serializer
from rest_framework.settings import api_settings
from rest_framework.viewsets import GenericViewSet

from modelhub.api.serializers.body import NoBodySerializer

# Actions that answer a plan; every other one would do what it was asked not to do.
PLANNED = frozenset({"load", "unload", "activate", "rollback", "optimize_memory"})

_OF_PAGES = ("limit", "offset")


class StrictViewSet(GenericViewSet):
    """Refuses query parameters that the action does not know, and a dry run of what has none, with 400.

    query_of_action: what an action may be asked, beside its page and its dry run. paged_actions: the lists that come in
    pages.
    """

    query_of_action: ClassVar[Mapping[str, type[Serializer]]] = {}
    paged_actions: ClassVar[frozenset[str]] = frozenset({"list"})

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if request.method not in SAFE_METHODS and "dry_run" in request.query_params and self.action not in PLANNED:
            raise serializers.ValidationError({"dry_run": ["There is no dry run of this; nothing was changed."]})
        if self.action is not None:  # else 405 follows
            check_query(request, self._known_parameters())

    def asked(self) -> dict[str, Any]:
        """The query parameters of this action, checked; raises ValidationError, a 400."""
        # .dict(): with a QueryDict DRF takes an absent boolean for a checkbox that was not ticked.
        serializer = self.query_of_action[self.action](data=self.request.query_params.dict())
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)

    def _known_parameters(self) -> list[str]:
        query = self.query_of_action.get(self.action)
        known = list(query().fields) if query is not None else []
        if self.action in self.paged_actions:
            known += _OF_PAGES
        if self.action in PLANNED:
            known.append("dry_run")
        return known


def check_query(request: Request, known: Iterable[str]) -> None:
    """Raises ValidationError that names each query parameter which is neither known nor the browsable API's own."""
    names = [*known, api_settings.URL_FORMAT_OVERRIDE]
    unknown = sorted(set(request.query_params) - set(names))
    if unknown:
        told = f"is no query parameter of this address; known are {', '.join(names)}."
        raise serializers.ValidationError({name: [f"{name} {told}"] for name in unknown})


def check_no_body(request: Request) -> None:
    """Raises ValidationError when a request that needs no body has one with fields: they would be passed over."""
    NoBodySerializer(data=request.data).is_valid(raise_exception=True)
