"""The dialog in which a person says that they have seen an alert."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from modelhub.console.admin.confirming import Done, Outcome, Question, ask, carry_out, require
from modelhub.console.admin.effects import Effect
from modelhub.telemetry.alerts import ACKNOWLEDGE_PERMISSION, acknowledge, alerts
from modelhub.telemetry.models import Alert


@require_http_methods(["GET", "POST"])
def acknowledge_view(request: HttpRequest, pk: int) -> HttpResponse:
    """GET says what that means; POST does it."""
    refused = require(request, request.user.has_perm(ACKNOWLEDGE_PERMISSION), "acknowledge alerts")
    if refused is not None:
        return refused
    alert: Any = get_object_or_404(alerts(), pk=pk)
    back = reverse("admin:telemetry_alert_change", args=[pk])
    question = partial(_question, alert, back)
    if request.method != "POST":
        return ask(request, admin.site, question())
    return carry_out(request, admin.site, partial(_acknowledge, request, alert), question, back)


def _question(alert: Alert, back: str) -> Question:
    return Question("Acknowledge the alert", "Acknowledge", back, [_effect(alert)], asks_reason=False)


def _effect(alert: Alert) -> Effect:
    opened = f"Open since {timezone.localtime(alert.opened_at):%Y-%m-%d %H:%M:%S}."
    if alert.resolved_at is not None:
        return Effect(
            alert.message, "It is resolved: there is nothing to acknowledge.", alert.message, is_possible=False
        )
    if alert.acknowledged_at is not None:
        who = alert.acknowledged_by_name or "somebody"
        return Effect(alert.message, f"{who} has acknowledged it already.", alert.message, is_possible=False)
    return Effect(
        alert.message,
        "Tells the others that you look after it. It stays until its cause is gone, and then resolves by itself.",
        f"{alert.message} {opened}",
    )


def _acknowledge(request: HttpRequest, alert: Alert) -> Outcome:
    present = acknowledge(alert, user=request.user)
    admin.site.get_model_admin(Alert).log_change(request, present, "Acknowledged.")
    return Done("Acknowledged", f"Acknowledged: {present.message}")
