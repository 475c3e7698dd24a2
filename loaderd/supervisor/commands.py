"""What the control socket is asked: commands that run as operations, plans, and questions."""

from __future__ import annotations

import os
from typing import Any

from loaderd.errors import LoaderdError, ShuttingDown
from loaderd.protocol import ModelSpec
from loaderd.supervisor.house import House
from loaderd.supervisor.operations import Operations


class Commands:
    def __init__(self, house: House, operations: Operations) -> None:
        self._house = house
        self._operations = operations

    async def handle(self, message: dict[str, Any]) -> dict[str, Any]:
        """The answer to one message. Raises LoaderdError."""
        house, operations = self._house, self._operations
        if house.stopping.is_set():
            raise ShuttingDown("loaderd is stopping; repeat the command when it runs again.")
        match message.get("command"):
            case "ping":
                return {
                    "pid": os.getpid(),
                    "boot_id": house.boot_id,
                    "started_at": house.started_at,
                    "inference": house.gateway.listening,
                }
            case "status":
                return {
                    "facts": house.facts(),
                    "models": {
                        model.model_id: {**model.snapshot(), "health": house.health.facts_of(model.model_id)}
                        for model in house.models()
                    },
                }
            case "load":
                spec = ModelSpec.from_message(message["spec"])
                operation_id = message["operation_id"]
                house.health.dismissed(spec.model_id)
                return operations.accept(
                    operation_id, house.load(spec, operation_id, f"load asked for by {message['user']}")
                )
            case "unload":
                operation_id = message["operation_id"]
                model = house.model(message["model_id"])
                house.health.dismissed(model.model_id)
                house.unfit.pop(model.model_id, None)
                unload = model.unload(operation_id, f"unload asked for by {message['user']}")
                return operations.accept(operation_id, unload, is_unload=True)
            case "activate":
                return operations.accept(message["operation_id"], house.activations.run(message))
            case "optimize":
                return operations.accept(message["operation_id"], house.thrift.optimise(pressure_percent=None))
            case "plan":
                return await self._plan(message)
            case "metrics":
                return {"text": house.metrics()}
            case "forget_answers":
                return {"forgotten": await house.gateway.forget_answers(message["model_id"])}
            case "cancel":
                return {"cancelled": operations.cancel(message["operation_id"])}
            case other:
                raise LoaderdError(f"loaderd has no command {other!r}.")

    async def _plan(self, message: dict[str, Any]) -> dict[str, Any]:
        """What a command would do; nothing is touched."""
        house = self._house
        match message["action"]:
            case "load":
                spec = ModelSpec.from_message(message["spec"])
                return (await house.budget.plan_load(spec)).to_message()
            case "activate":
                spec = ModelSpec.from_message(message["spec"])
                live = house.lineages.live_of(spec.lineage)
                return await house.budget.plan_activation(spec, live, allow_gap=bool(message.get("allow_gap")))
            case "unload":
                return await house.budget.plan_unload(message["model_id"])
            case "optimize":
                return await house.thrift.plan()
            case other:
                raise LoaderdError(f"loaderd plans load, unload, activate and optimize, not {other!r}.")
