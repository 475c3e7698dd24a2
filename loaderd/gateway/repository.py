"""The protocol's model repository extension: index, load and unload, through the supervisor.

The index names each version by its model_id, which every other call takes; `lineage` stands beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loaderd.errors import InvalidInput, StateForbids, UnknownModel, from_message
from loaderd.states import ModelState

if TYPE_CHECKING:
    from loaderd.gateway.supervisor import Supervisor

_STATES = {
    ModelState.LOADED: "READY",
    ModelState.LOADING: "LOADING",
    ModelState.UNLOADING: "UNLOADING",
    ModelState.UNLOADED: "UNAVAILABLE",
    ModelState.ERROR: "UNAVAILABLE",
}


class Repository:
    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    async def index(self, body: Any) -> list[dict[str, Any]]:
        """Every registered version with its state; only the loaded ones for {"ready": true}. Raises InvalidInput."""
        only_ready = _object(body).get("ready") is True
        entries = [
            {
                "name": row["model_id"],
                "version": row["version"],
                "state": _STATES.get(row["state"], "UNAVAILABLE"),
                "reason": row.get("reason", ""),
                "lineage": row["name"],
            }
            for row in await self._supervisor.ask("index")
        ]
        return [entry for entry in entries if not only_ready or entry["state"] == "READY"]

    async def command(self, command: str, name: str, body: Any, user: str) -> dict[str, Any]:
        """Loads or unloads and waits for the end of it; raises InvalidInput, or what the operation failed with.

        body: {"parameters": {}}; `unload_dependents` of an unload makes no difference: no model depends on another.
        """
        _check_parameters(_object(body))
        model_id = await self._model_id(command, name)
        outcome = await self._supervisor.ask(command, model_id=model_id, user=user)
        if outcome.get("error"):
            raise from_message(outcome["error"])
        return {"name": model_id, "state": outcome.get("state")}

    async def _model_id(self, command: str, name: str) -> str:
        """The version that a name means for a command: a model_id first, then a lineage's live version, or its only
        one."""
        if name in self._supervisor.routes.models:
            return name
        rows = await self._supervisor.ask("index")
        if any(row["model_id"] == name for row in rows):
            return name
        live = self._supervisor.routes.live_of(name)
        if live is not None:
            return live
        versions = [row for row in rows if row["name"] == name]
        if command == "unload":
            versions = [row for row in versions if row["state"] == ModelState.LOADED] or versions
        if not versions:
            raise UnknownModel(
                f'No model named "{name}" is registered; POST /v2/repository/index lists them.', model=name
            )
        if len(versions) > 1:
            listed = ", ".join(row["model_id"] for row in versions)
            raise StateForbids(f'"{name}" has several versions; say which to {command}: {listed}.', model=name)
        model_id: str = versions[0]["model_id"]
        return model_id


def _object(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise InvalidInput("The request must be a JSON object, or empty.")
    return body


def _check_parameters(body: dict[str, Any]) -> None:
    """Raises InvalidInput also for files and configurations that a client would bring along."""
    parameters = body.get("parameters")
    if not isinstance(parameters, dict | None):
        raise InvalidInput('The request needs "parameters" as an object.')
    for key, value in (parameters or {}).items():
        if key == "config" or key.startswith("file:"):
            raise InvalidInput(
                f'The parameter "{key}" is refused: models are loaded as they are registered, from the store only.'
            )
        if key == "unload_dependents" and not isinstance(value, bool):
            raise InvalidInput('The parameter "unload_dependents" must be true or false.')
