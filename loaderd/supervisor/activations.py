"""The activations under way or waiting for their lineage's turn, and the models that must not go meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from loaderd.protocol import ModelSpec
from loaderd.supervisor.health import Health
from loaderd.supervisor.lineages import Lineages


@dataclass(frozen=True, slots=True)
class _Activation:
    """model_id: becomes live. why: those that take part must not go now, in words."""

    lineage: str
    model_id: str
    why: str


class Activations:
    """on_end: called when one is over."""

    def __init__(self, lineages: Lineages, health: Health, on_end: Callable[[], None]) -> None:
        self._lineages = lineages
        self._health = health
        self._on_end = on_end
        self._activations: dict[str, _Activation] = {}  # by operation id

    async def run(self, message: dict[str, Any]) -> dict[str, Any]:
        """Carries out the command "activate"; see Lineages.activate."""
        spec, operation_id = ModelSpec.from_message(message["spec"]), message["operation_id"]
        self._health.dismissed(spec.model_id)
        kind = message["kind"]
        why = f"{'a rollback' if kind == 'rollback' else 'an activation'} of {spec.lineage} is under way"
        self._activations[operation_id] = _Activation(spec.lineage, spec.model_id, why)
        try:
            return await self._lineages.activate(
                spec,
                operation_id,
                user=message["user"],
                kind=kind,
                reason=message["reason"],
                allow_gap=message["allow_gap"],
            )
        finally:
            del self._activations[operation_id]
            self._on_end()

    @property
    def lineages(self) -> set[str]:
        """Those whose alias is being moved."""
        return {activation.lineage for activation in self._activations.values()}

    def protection_of(self, model_id: str) -> str:
        """Why the model must not go now; "" when it may."""
        for each in self._activations.values():
            if model_id == each.model_id or self._lineages.takes_part(each.lineage, model_id):
                return each.why
        return ""
