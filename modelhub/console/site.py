"""The admin as one tidy site: its look, its sidebar with badges, what is fetched for every page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse, reverse_lazy

from modelhub.console.live import Shared


def _may(permission: str) -> Callable[[HttpRequest], bool]:
    def has_permission(request: HttpRequest) -> bool:
        return bool(request.user.has_perm(permission))

    return has_permission


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


def open_alerts(request: HttpRequest) -> str | None:
    """For the sidebar: how many alerts are open and not acknowledged; None (no badge) without any."""
    return str(count) if (count := counts.get()["alerts"]) else None


def running_operations(request: HttpRequest) -> str | None:
    """For the sidebar: how many operations are queued or running; None without any."""
    return str(count) if (count := counts.get()["operations"]) else None


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
    alerts = {"badge": open_alerts, "badge_variant": "danger"}
    operations = {"badge": running_operations, "badge_variant": "info"}
    return [
        {
            "items": [{"title": "Dashboard", "icon": "dashboard", "link": reverse("admin:index")}],
        },
        {
            "title": "Models",
            "items": [
                _page("Models", "deployed_code", "registry.modelversion"),
                _page("Lineages", "account_tree", "registry.model"),
                _page("Live beside candidate", "compare_arrows", "telemetry.comparison"),
                _page("Discoveries", "travel_explore", "registry.discoveryrun"),
            ],
        },
        {
            "title": "Activity",
            "items": [
                _page("Alerts", "notifications", "telemetry.alert", **alerts),
                _page("Operations", "play_circle", "lifecycle.operation", **operations),
                _page("State changes", "swap_horiz", "lifecycle.statechange"),
                _page("Who was live", "history", "lifecycle.lineagechange"),
                _page("Audit", "policy", "admin.logentry"),
                _page("Traces", "timeline", "telemetry.trace"),
                _page("Samples", "monitoring", "telemetry.sample"),
            ],
        },
        {
            "title": "Settings",
            "items": [
                _page("Policy", "tune", "policy.policy"),
                _page("Policy changes", "manage_history", "policy.policychange"),
                _page("Schedules", "schedule", "django_q.schedule"),
                _page("Users", "person", "auth.user"),
                _page("Groups", "group", "auth.group"),
                _page("API tokens", "key", "accounts.apitoken"),
            ],
        },
        {
            "title": "Machinery",
            "items": [
                _page("loaderd", "memory", "lifecycle.loaderstatus"),
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
        }
    },
    "DASHBOARD_CALLBACK": "modelhub.console.dashboard.views.extend",
    "SIDEBAR": {"show_search": True, "command_search": True, "navigation": navigation},
}
