"""Loads models and waits until they answer."""

from __future__ import annotations

from typing import Any

from modelhub.lifecycle.actions import request_load
from modelhub.lifecycle.models import Operation
from modelhub.management.operating import OperationCommand
from modelhub.registry.models import ModelVersion


class Command(OperationCommand):
    help = "Loads models and waits until they answer; exit status 1 when one does not."

    def request(self, version: ModelVersion, user: Any, reason: str) -> Operation:
        return request_load(version, user=user, source="command", reason=reason)

    def sentence(self, model_id: str, result: dict[str, Any]) -> str:
        seconds = result.get("load_seconds") or 0.0
        held_bytes = result.get("private_bytes")
        memory = "memory not measured" if held_bytes is None else f"{held_bytes / 1024**2:.0f} MiB"
        return f"{model_id}: loaded in {seconds:.2f} s, {memory}"
