"""A dry run in words: the plan's sentence, then each model that would go, and each that would not, with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loaderd.scheduler import Decision
from modelhub.management.tables import in_units


def is_refused(plan: Mapping[str, Any]) -> bool:
    """Whether what was asked for could not be done."""
    return "error" in plan or plan["decision"] == Decision.REFUSED


def in_words(plan: Mapping[str, Any]) -> str:
    if "error" in plan:
        return str(plan["error"]["message"])
    going = [*plan.get("evict", ()), *plan.get("victims", ())]
    lines = [plan["sentence"], *(_line("would go", model) for model in going)]
    # Why the others would stay matters only where there is no room.
    if is_refused(plan):
        lines += [_line("stays", model) for model in plan.get("kept", ())]
    return "\n".join(lines)


def _line(what: str, model: Mapping[str, Any]) -> str:
    return f"  {what}: {model['model_id']}, {in_units(model['bytes'])}, {model['reason']}"
