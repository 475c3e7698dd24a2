"""The admin as one tidy site: its look, its sidebar with badges, what is fetched for every page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse, reverse_lazy

from modelhub.console.live import Shared
from modelhub.console.registering.access import may_register


def _may(permission: str) -> Callable[[HttpRequest], bool]:
    def has_permission(request: HttpRequest) -> bool:
        return bool(request.user.has_perm(permission))

    return has_permission


def _may_register(request: HttpRequest) -> bool:
    return may_register(request.user)


def _page(title: str, icon: str, model: str, **more: Any) -> dict[str, Any]:
    """An entry that leads to a model's list: `model` is "app.name"."""
    app, _, name = model.partition(".")
    return {
        "title": title,
        "icon": icon,
        "link": reverse_lazy(f"admin:{app}_{name}_changelist"),
        "permission": _may(f"{app}.view_{name}"),
        **more,
    }


@dataclass(frozen=True, slots=True)
class Badge:
    """A count beside an entry of the sidebar. word: what is counted, for who hears it. tone: see words.tone_of."""

    name: str
    count: int
    word: str
    tone: str


def badges(request: HttpRequest) -> dict[str, Badge]:
    """Name to badge: the alerts open and not acknowledged, the operations under way; of those whom it is permitted."""
    user, count = request.user, counts.get()
    found = {}
    if user.has_perm("telemetry.view_alert"):
        found["alerts"] = Badge("alerts", count["alerts"], "open", "bad")
    if user.has_perm("lifecycle.view_operation"):
        found["operations"] = Badge("operations", count["operations"], "under way", "busy")
    return found


def _count() -> dict[str, int]:
    # Here, because settings import this module before there are models.
    from modelhub.lifecycle.models import ACTIVE, Operation
    from modelhub.telemetry.models import Alert

    return {
        "alerts": Alert.objects.filter(resolved_at=None, acknowledged_at=None).count(),
        "operations": Operation.objects.filter(status__in=ACTIVE).count(),
    }


counts = Shared(_count)


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """The sidebar; an entry is shown to whom it is permitted."""
    return groups(request, badges(request))


def groups(request: HttpRequest, shown: Mapping[str, Badge]) -> list[dict[str, Any]]:
    """The groups of the sidebar with these badges; no query.

    keywords: what else people call a page, for the search. is_folded: the group is closed until somebody opens it.
    """
    return [
        {
            "items": [
                {
                    "title": "Dashboard",
                    "icon": "dashboard",
                    "link": reverse("admin:index"),
                    "active": request.path == reverse("admin:index"),
                    "keywords": "home overview memory gauge",
                }
            ],
        },
        {
            "title": "Models",
            "items": [
                _page("Models", "deployed_code", "registry.modelversion", keywords="versions artifacts list"),
                _page("Lineages", "account_tree", "registry.model", keywords="aliases traffic live candidate"),
                _page("Live beside candidate", "compare_arrows", "telemetry.comparison", keywords="shadow comparison"),
                _page("Discoveries", "travel_explore", "registry.discoveryrun", keywords="store reports found"),
                {
                    "title": "Register a model",
                    "icon": "upload",
                    "link": reverse("console:register"),
                    "permission": _may_register,
                    "keywords": "upload add new zip",
                },
            ],
        },
        {
            "title": "Activity",
            "items": [
                _page("Alerts", "notifications", "telemetry.alert", badge=shown.get("alerts"), keywords="warnings"),
                _page(
                    "Operations",
                    "play_circle",
                    "lifecycle.operation",
                    badge=shown.get("operations"),
                    keywords="loads unloads progress",
                ),
                _page("Jobs", "dataset", "jobs.job", keywords="batch files offline csv parquet results"),
                _page("State changes", "swap_horiz", "lifecycle.statechange", keywords="history crashes"),
                _page("Who was live", "history", "lifecycle.lineagechange", keywords="activations rollbacks"),
                _page("Audit", "policy", "admin.logentry", keywords="log who changed what"),
                _page("Traces", "timeline", "telemetry.trace", keywords="requests predictions latency"),
                _page("Samples", "monitoring", "telemetry.sample", keywords="metrics"),
            ],
        },
        {
            "title": "Settings",
            "items": [
                _page("Policy", "tune", "policy.policy", keywords="settings budget limits"),
                _page("Policy changes", "manage_history", "policy.policychange"),
                _page("Schedules", "schedule", "django_q.schedule"),
                _page("Users", "person", "auth.user", keywords="accounts permissions"),
                _page("Groups", "group", "auth.group", keywords="roles permissions"),
                _page("API tokens", "key", "accounts.apitoken", keywords="keys access"),
            ],
        },
        {
            "title": "Machinery",
            "is_folded": True,
            "items": [
                _page("loaderd", "memory", "lifecycle.loaderstatus", keywords="daemon host gpu status"),
                _page("Queued tasks", "pending_actions", "django_q.ormq"),
                _page("Finished tasks", "task_alt", "django_q.success"),
                _page("Failed tasks", "error", "django_q.failure"),
            ],
        },
    ]


UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Modelhub",
    "SITE_HEADER": "Modelhub",
    "SITE_SYMBOL": "deployed_code",
    "SITE_URL": None,
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("console/favicon.svg")},
    ],
    "STYLES": [lambda request: static("console/console.css")],
    "SCRIPTS": [
        lambda request: static("console/vendor/idiomorph-ext.min.js"),
        lambda request: static("console/console.js"),
        lambda request: static("console/shell.js"),
    ],
    "SHOW_VIEW_ON_SITE": False,
    "COLORS": {
        "primary": {
            "50": "oklch(97% .014 254.604)",
            "100": "oklch(93.2% .032 255.585)",
            "200": "oklch(88.2% .059 254.128)",
            "300": "oklch(80.9% .105 251.813)",
            "400": "oklch(70.7% .165 254.624)",
            "500": "oklch(62.3% .214 259.815)",
            "600": "oklch(54.6% .245 262.881)",
            "700": "oklch(48.8% .243 264.376)",
            "800": "oklch(42.4% .199 265.638)",
            "900": "oklch(37.9% .146 265.522)",
            "950": "oklch(28.2% .091 267.935)",
        },
        # Subtle text, too, stands on its ground with a contrast of 4.5 or more.
        "font": {
            "subtle-light": "var(--color-base-600)",
            "subtle-dark": "var(--color-base-400)",
            "default-light": "var(--color-base-700)",
            "default-dark": "var(--color-base-300)",
            "important-light": "var(--color-base-900)",
            "important-dark": "var(--color-base-100)",
        },
    },
    "DASHBOARD_CALLBACK": "modelhub.console.dashboard.views.extend",
    "SIDEBAR": {"show_search": True, "command_search": True, "navigation": navigation},
}
