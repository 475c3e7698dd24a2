"""Unloads what nobody needs, and tells what came back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.management.base import CommandParser

from modelhub.lifecycle import planning
from modelhub.lifecycle.models import Operation
from modelhub.lifecycle.optimising import request_optimize
from modelhub.management.operating import OperationCommand, memory_of


class Command(OperationCommand):
    help = (
        "Unloads models that are unused or little used, never what is pinned, busy or just loaded, and tells the "
        "memory that came back, measured. With --dry-run: what would go."
    )

    def add_subjects(self, parser: CommandParser) -> None:
        pass  # it concerns all models

    def subjects(self, options: dict[str, Any]) -> Sequence[str]:
        return ["all models"]

    def request(self, subject: str, user: Any, options: dict[str, Any]) -> Operation:
        return request_optimize(user=user, source="command", reason=options["reason"])

    def plan(self, subject: str, options: dict[str, Any]) -> dict[str, Any]:
        return planning.plan_optimize()

    def sentence(self, subject: str, result: dict[str, Any]) -> str:
        unloaded = result.get("unloaded") or []
        if not unloaded:
            return "Nothing to unload."
        told = [
            f"{one['model_id']}: unloaded, {memory_of(one.get('freed_bytes'))} freed; {one['reason']}"
            for one in unloaded
        ]
        promised, freed = result.get("promised_bytes"), result.get("freed_bytes")
        total = f"Together {memory_of(freed)} freed, {memory_of(promised)} expected."
        return "\n".join([*told, total])
