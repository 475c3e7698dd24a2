"""The dashboard's page and its live fragment."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse

from modelhub.console.dashboard.snapshot import dashboard
from modelhub.console.fragments import answer, fragment

TEMPLATE = "console/dashboard/live.html"


def extend(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """What the admin's first page shows beside what every page has; called by unfold."""
    return {**context, "title": "Dashboard", "live": fragment(request, TEMPLATE, {"seen": dashboard.get()})}


def live(request: HttpRequest) -> HttpResponse:
    """The fragment for a page that is open; for everybody who may enter the admin."""
    return answer(request, TEMPLATE, {"seen": dashboard.get()})
