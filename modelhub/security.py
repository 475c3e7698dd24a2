"""What browsers are told that this site's pages may do, and which addresses are no addresses."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest

# The admin's Alpine and the API's Swagger page need inline scripts and eval; nothing needs another host.
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_API = "/api/"  # its own words for what is wrong with an address are JSON


def content_security_policy(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[..., HttpResponse]:
    """Middleware: sets the policy on every answer that has none."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        return response

    return middleware


def no_nul_in_addresses(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[..., HttpResponse]:
    """Middleware: answers 400 to a page's address with a NUL in its path or query: Postgres takes none in a value."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.path.startswith(_API):
            return get_response(request)
        query = request.META.get("QUERY_STRING", "")
        if "\0" in request.path or "\0" in query or "%00" in query:
            return HttpResponseBadRequest("There is a NUL character in this address.", content_type="text/plain")
        return get_response(request)

    return middleware
