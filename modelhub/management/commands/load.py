"""Loads models and waits until they answer."""

from __future__ import annotations

from typing import Any

from modelhub.lifecycle import planning
from modelhub.lifecycle.actions import request_load
from modelhub.lifecycle.models import Operation
from modelhub.lifecycle.versions import named
from modelhub.management.operating import OperationCommand, memory_of


class Command(OperationCommand):
    help = (
        "Loads models and waits until they answer; exit status 1 when one does not. With --dry-run: what would have to "
        "go for them."
    )

    def request(self, subject: str, user: Any, options: dict[str, Any]) -> Operation:
        return request_load(named(subject), user=user, source="command", reason=options["reason"])

    def plan(self, subject: str, options: dict[str, Any]) -> dict[str, Any]:
        return planning.plan_load(named(subject))

    def sentence(self, subject: str, result: dict[str, Any]) -> str:
        seconds, memory = result.get("load_seconds") or 0.0, memory_of(result.get("private_bytes"))
        if result.get("was_loaded"):
            return f"{subject}: is loaded already, {memory}; nothing was done"
        return f"{subject}: loaded in {seconds:.2f} s, {memory}"
