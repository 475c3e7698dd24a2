"""Unloads models and waits until their processes are gone."""

from __future__ import annotations

from typing import Any

from modelhub.lifecycle import planning
from modelhub.lifecycle.actions import request_unload
from modelhub.lifecycle.models import Operation
from modelhub.lifecycle.versions import named
from modelhub.management.operating import OperationCommand, memory_of


class Command(OperationCommand):
    help = (
        "Unloads models and waits until their processes are gone; exit status 1 when one is not. With --dry-run: what "
        "would come back."
    )

    def request(self, subject: str, user: Any, options: dict[str, Any]) -> Operation:
        return request_unload(named(subject), user=user, source="command", reason=options["reason"])

    def plan(self, subject: str, options: dict[str, Any]) -> dict[str, Any]:
        return planning.plan_unload(named(subject))

    def sentence(self, subject: str, result: dict[str, Any]) -> str:
        if result.get("status") == "not_loaded":
            return f"{subject}: was not loaded"
        freed_bytes = result.get("freed_bytes")
        return f"{subject}: unloaded" + ("" if freed_bytes is None else f", {memory_of(freed_bytes)} freed")
