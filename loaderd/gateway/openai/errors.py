"""Errors as the OpenAI API has them: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

from typing import Any

import orjson

from loaderd.errors import LoaderdError, ModelNotLoaded, ModelTimeout, NotAuthenticated, PredictionFailed, UnknownModel
from loaderd.gateway.app import Response, error_headers

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}
"""HTTP status -> type; other statuses below 500 are an invalid_request_error, the rest a server_error."""

_CODES: dict[type[LoaderdError], str] = {NotAuthenticated: "invalid_api_key", UnknownModel: "model_not_found"}
"""What clients compare with, where their word is not ours."""

# OpenAI's clients try again after 409 and 5xx by themselves. What will fail again the same way says so.
_NOT_AGAIN = (b"x-should-retry", b"false")
_LASTING = (ModelNotLoaded, ModelTimeout, PredictionFailed)


def described(error: LoaderdError) -> dict[str, Any]:
    """The body of an error's answer, or of its event in a stream."""
    status = error.http_status
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    code = error.facts.get("reason") or _CODES.get(type(error), error.code)
    return {"error": {"message": error.message, "type": kind, "param": error.facts.get("param"), "code": code}}


def response(error: LoaderdError) -> Response:
    headers = error_headers(error)
    if isinstance(error, _LASTING):
        headers = (*headers, _NOT_AGAIN)
    return Response(orjson.dumps(described(error), default=str), error.http_status, headers)


def renamed(error: LoaderdError, names: dict[str, str]) -> LoaderdError:
    """The same error with its parameter as this request calls it, in the sentence as well."""
    param = error.facts.get("param")
    if param not in names:
        return error
    facts = {**error.facts, "param": names[param]}
    return type(error)(error.message.replace(param, names[param]), **facts)
