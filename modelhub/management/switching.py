"""What `manage.py activate` and `manage.py rollback` share: one subject, a gap that may be allowed, how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.management.base import CommandParser

from modelhub.management.operating import OperationCommand, memory_of


class SwitchCommand(OperationCommand):
    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--allow-gap",
            action="store_true",
            help="When both versions do not fit into memory, unload the live one first: requests wait meanwhile.",
        )

    def subjects(self, options: dict[str, Any]) -> Sequence[str]:
        return [options["subject"]]

    def told_of_gap(self, plan: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
        """The plan; with an error when it needs a gap that was not allowed."""
        if not plan.get("needs_gap") or options["allow_gap"]:
            return plan
        message = (
            f"{plan['model_id']} does not fit beside {plan['replaces']}, which is live; with --allow-gap that one is "
            "unloaded first, and requests wait until the other is loaded."
        )
        return {**plan, "error": {"code": "insufficient_memory", "message": message, "facts": {}}}

    def sentence(self, subject: str, result: dict[str, Any]) -> str:
        model_id = result.get("model_id", subject)
        if result.get("was_live"):
            return f"{model_id}: is live already; nothing was done"
        told = [f"{model_id}: live"]
        if result.get("load_seconds"):  # 0 or None: it was loaded already
            told.append(f"loaded in {result['load_seconds']:.2f} s")
        if result.get("previous"):
            freed_bytes = result.get("freed_bytes")
            freed = "" if freed_bytes is None else f", {memory_of(freed_bytes)} freed"
            told.append(f"in place of {result['previous']}{freed}")
        if result.get("gap_seconds") is not None:
            told.append(f"nobody answered for {result['gap_seconds']:.2f} s")
        return ", ".join(told)
