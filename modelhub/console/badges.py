"""The counts in the sidebar, for pages that are open."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse

from modelhub.console.fragments import answer
from modelhub.console.site import badges


def live(request: HttpRequest) -> HttpResponse:
    """Every badge that the user may see, each to be put in its place; 204 when the page shows the same already."""
    return answer(request, "unfold/helpers/badges.html", {"badges": badges(request).values()})
