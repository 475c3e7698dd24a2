"""What the OpenAPI schema says beyond what drf-spectacular reads from the views."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.plumbing import build_bearer_security_scheme_object
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse

from modelhub.api.serializers.errors import WORDING, ErrorSerializer

ALWAYS = (401, 500, 503)
PAGE_HEADERS = [
    OpenApiParameter(
        "X-Total-Count", int, OpenApiParameter.HEADER, response=[200], description="Items of the whole list."
    ),
    OpenApiParameter(
        "Link", str, OpenApiParameter.HEADER, response=[200], description='RFC 8288: rel="next", rel="prev".'
    ),
]


class TokenScheme(OpenApiAuthenticationExtension):
    target_class = "modelhub.accounts.authentication.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return build_bearer_security_scheme_object(header_name="Authorization", token_prefix="Token")  # noqa: S106 (a word)


def errors(*statuses: int) -> dict[int, OpenApiResponse]:
    """The error responses of an endpoint, with those that each endpoint can give."""
    return {
        status: OpenApiResponse(ErrorSerializer, description=WORDING[status]) for status in sorted({*statuses, *ALWAYS})
    }


def canonical_paths(endpoints: list[tuple[str, str, str, Any]], **kwargs: Any) -> list[tuple[str, str, str, Any]]:
    """Paths as the specification writes them: lists end with a slash, nothing else does; both forms are served."""
    lists = ("/api/models/", "/api/lineages/", "/api/operations/", "/api/alerts/", "/api/jobs/")
    return [
        (path if path in lists else path.rstrip("/"), regex, method, view) for path, regex, method, view in endpoints
    ]
