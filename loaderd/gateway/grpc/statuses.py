"""Errors as gRPC's statuses: the code by the error's HTTP status, the sentence as the details."""

from __future__ import annotations

from typing import Any, NoReturn

from grpc import StatusCode

from loaderd.errors import LoaderdError
from loaderd.gateway.oip import NotOffered

CODE_METADATA = "modelhub-code"  # trailing metadata with the error's word for programs

_CODES = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    405: StatusCode.UNIMPLEMENTED,
    408: StatusCode.DEADLINE_EXCEEDED,
    409: StatusCode.FAILED_PRECONDITION,
    413: StatusCode.RESOURCE_EXHAUSTED,
    429: StatusCode.RESOURCE_EXHAUSTED,
    500: StatusCode.INTERNAL,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
    507: StatusCode.RESOURCE_EXHAUSTED,
}


def code_of(error: LoaderdError) -> StatusCode:
    """An unforeseen status is the caller's mistake below 500, else ours."""
    if isinstance(error, NotOffered):
        return StatusCode.UNIMPLEMENTED
    foreseen = _CODES.get(error.http_status)
    if foreseen is not None:
        return foreseen
    return StatusCode.INVALID_ARGUMENT if error.http_status < 500 else StatusCode.INTERNAL


async def abort(context: Any, error: LoaderdError) -> NoReturn:
    """Ends the call with the error; raises what gRPC ends a call by."""
    await context.abort(code_of(error), error.message, trailing_metadata=((CODE_METADATA, error.code),))
    raise AssertionError("abort always raises")
