"""Every error of the API in one shape: {"error": {"code", "message", "details"}}.

What went wrong in loaderd or in a command is a `LoaderdError`, which carries its own HTTP status; the
rest are the exceptions of DRF, Django and the database.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.db import InterfaceError, OperationalError
from django.http import Http404
from rest_framework import exceptions, status
from rest_framework.renderers import BrowsableAPIRenderer, JSONRenderer
from rest_framework.response import Response
from rest_framework.views import set_rollback

from loaderd.errors import LoaderdError
from modelhub.registry.approval import ApprovalRefused
from modelhub.registry.discovery import DiscoveryFailed

logger = logging.getLogger(__name__)


def body(code: str, message: str, details: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The one shape."""
    return {"error": {"code": code, "message": message, "details": dict(details or {})}}


def handle(error: Exception, context: Mapping[str, Any]) -> Response:
    """DRF's exception handler: the response to any exception that a view raised."""
    set_rollback()
    request = context.get("request")
    if request is not None:
        _answer_in_json(request, always=isinstance(error, (OperationalError, InterfaceError)))
    return _response(error, context)


def _answer_in_json(request: Any, always: bool) -> None:
    """Only the browsable API words errors itself; it cannot when the database, and with it the user, is away."""
    if always or not isinstance(getattr(request, "accepted_renderer", None), BrowsableAPIRenderer):
        request.accepted_renderer = JSONRenderer()
        request.accepted_media_type = JSONRenderer.media_type


def _response(error: Exception, context: Mapping[str, Any]) -> Response:
    match error:
        case LoaderdError():
            return Response(body(error.code, error.message, error.facts), status=error.http_status)
        case Http404():
            return _response(exceptions.NotFound("Nothing is at this address; GET /api/docs/ lists what is."), context)
        case PermissionDenied():
            return _response(exceptions.PermissionDenied(str(error) or None), context)
        case ApprovalRefused():
            return Response(body("approval_refused", str(error)), status=status.HTTP_409_CONFLICT)
        case DiscoveryFailed():
            return Response(body("discovery_failed", str(error)), status=status.HTTP_503_SERVICE_UNAVAILABLE)
        case RequestDataTooBig():
            return Response(body("body_too_large", str(error)), status=status.HTTP_413_REQUEST_ENTITY_TOO_LARGE)
        case exceptions.APIException():
            return Response(_api_exception_body(error), status=error.status_code, headers=_headers(error))
        case OperationalError() | InterfaceError():
            logger.error("the database is away: %s", error)
            return Response(
                body("database_away", "The database does not answer, so nothing was done; repeat in a few seconds."),
                status=status.HTTP_503_SERVICE_UNAVAILABLE,
                headers={"Retry-After": "5"},
            )
    reference = uuid.uuid4().hex[:12]
    request = context.get("request")
    logger.error(
        "%s %s failed, reference %s",
        getattr(request, "method", "?"),
        getattr(request, "path", "?"),
        reference,
        exc_info=error,
    )
    message = f"The server failed; its log says why under the reference {reference}."
    return Response(body("internal_error", message, {"reference": reference}), status=500)


_CODES: dict[type[exceptions.APIException], str] = {
    exceptions.ValidationError: "invalid_input",
    exceptions.ParseError: "malformed_request",
    exceptions.NotAuthenticated: "not_authenticated",
    exceptions.AuthenticationFailed: "authentication_failed",
    exceptions.PermissionDenied: "permission_denied",
    exceptions.NotFound: "not_found",
    exceptions.MethodNotAllowed: "method_not_allowed",
    exceptions.NotAcceptable: "not_acceptable",
    exceptions.UnsupportedMediaType: "unsupported_media_type",
    exceptions.Throttled: "throttled",
}


def _api_exception_body(error: exceptions.APIException) -> dict[str, Any]:
    code = _CODES.get(type(error), error.default_code)
    if isinstance(error, exceptions.ValidationError):
        details = error.detail if isinstance(error.detail, dict) else {"non_field_errors": error.detail}
        return body(code, _first_sentence(details), details)
    if isinstance(error, exceptions.NotAuthenticated):
        return body(code, "Log in at /admin/ or send the header `Authorization: Token …`.")
    return body(code, str(error.detail))


def _first_sentence(details: Any, field: str = "") -> str:
    """The first message of DRF's nested errors, with the path of its field."""
    if isinstance(details, Mapping):
        name, inner = next(iter(details.items()))
        path = field if name == "non_field_errors" else f"{field}.{name}" if field else str(name)
        return _first_sentence(inner, path)
    if isinstance(details, list):
        return _first_sentence(next((item for item in details if item), ""), field)
    return f"{field}: {details}" if field else str(details)


def _headers(error: exceptions.APIException) -> dict[str, str]:
    headers = {}
    if getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = str(error.auth_header)
    if getattr(error, "wait", None):
        headers["Retry-After"] = str(int(error.wait))
    return headers
