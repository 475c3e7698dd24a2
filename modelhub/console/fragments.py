"""Fragments that a page asks for again and again: answered 204 when the page shows the same already."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe


def fragment(request: HttpRequest, template: str, context: Mapping[str, Any]) -> SafeString:
    """The rendered template within an element that carries its digest, for the page's first view."""
    inner = render_to_string(template, dict(context), request=request)
    digest = hashlib.blake2b(inner.encode(), digest_size=8).hexdigest()
    # The template escaped what it shows.
    return format_html('<div data-mh-digest="{}">{}</div>', digest, mark_safe(inner))  # noqa: S308


def answer(request: HttpRequest, template: str, context: Mapping[str, Any]) -> HttpResponse:
    """The fragment, or 204 when its digest is the one that the page has (`?seen=`). Never cached."""
    rendered = fragment(request, template, context)
    seen = request.GET.get("seen", "")
    status = 204 if seen and rendered.startswith(f'<div data-mh-digest="{seen}">') else 200
    response = HttpResponse("" if status == 204 else rendered, status=status)
    response.headers["Cache-Control"] = "no-store"
    return response


def for_staff(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """The view behind the admin's door. A page whose session ended is told to load itself again, so it shows the
    login; a redirect would put the login into a card."""
    behind_door = admin.site.admin_view(view)

    @wraps(view)
    def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if "HX-Request" in request.headers and not admin.site.has_permission(request):
            return HttpResponse(status=204, headers={"HX-Refresh": "true", "Cache-Control": "no-store"})
        return behind_door(request, *args, **kwargs)

    return checked
