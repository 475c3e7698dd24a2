"""Unloads models and waits until their processes are gone."""

from __future__ import annotations

from typing import Any

from modelhub.lifecycle.actions import request_unload
from modelhub.lifecycle.models import Operation
from modelhub.management.operating import OperationCommand
from modelhub.registry.models import ModelVersion


class Command(OperationCommand):
    help = "Unloads models and waits until their processes are gone; exit status 1 when one is not."

    def request(self, version: ModelVersion, user: Any, reason: str) -> Operation:
        return request_unload(version, user=user, source="command", reason=reason)

    def sentence(self, model_id: str, result: dict[str, Any]) -> str:
        if result.get("status") == "not_loaded":
            return f"{model_id}: was not loaded"
        freed_bytes = result.get("freed_bytes")
        freed = "" if freed_bytes is None else f", {freed_bytes / 1024**2:.0f} MiB freed"
        return f"{model_id}: unloaded{freed}"
