"""Which models answer here, and what of: /v1/models."""

from __future__ import annotations

import os
from typing import Any

from loaderd.errors import InvalidInput
from loaderd.gateway.predicting import Predictor
from loaderd.gateway.routes import Route

OWNER = "modelhub"
TEXT = "generated_text"
EMBEDDING = "embedding"
_ABILITIES = {TEXT: ["completions", "chat.completions"], EMBEDDING: ["embeddings"]}
"""Name of an output -> what a model that has it answers."""


def listed(predictor: Predictor) -> dict[str, Any]:
    """The loaded models that answer here, each by its model id, and by its lineage's name where that leads to one."""
    targets = predictor.supervisor.routes.targets
    found = [(name, target.route) for name, target in sorted(targets.items())]
    return {
        "object": "list",
        "data": [_described(name, route) for name, route in found if route.is_ready and _abilities(route)],
    }


async def described(predictor: Predictor, name: str) -> dict[str, Any]:
    """One of them. Raises UnknownModel, ModelNotLoaded, and InvalidInput for a model of another kind."""
    route = (await predictor.lookup.find(name, None)).route.require_ready()
    if not _abilities(route):
        raise InvalidInput(
            f"{name} neither embeds nor generates text; ask it at /v2/models/{name}/infer.", param="model"
        )
    return _described(name, route)


async def require_output(predictor: Predictor, name: str, output: str) -> Route:
    """Where the name leads, if that is known to have the output or is not loaded yet. Raises UnknownModel,
    ModelNotLoaded, Overloaded as an ask would, and InvalidInput."""
    await predictor.require_hope(name, None)
    route = (await predictor.lookup.find(name, None)).route
    if route.is_ready and route.signature is not None and output not in _outputs(route):
        does = "generate text" if output == TEXT else "embed texts"
        able = ", ".join(f"/v1/{ability.replace('.', '/')}" for ability in _abilities(route))
        raise InvalidInput(f"{name} does not {does}; ask it at {able or f'/v2/models/{name}/infer'}.", param="model")
    return route


def _outputs(route: Route) -> list[str]:
    return [output["name"] for output in (route.signature or {}).get("outputs", [])]


def _abilities(route: Route) -> list[str]:
    return [ability for output in _outputs(route) for ability in _ABILITIES.get(output, ())]


def _described(name: str, route: Route) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": _loaded_at(route),
        "owned_by": OWNER,
        "model_id": route.model_id,
        "abilities": _abilities(route),
    }


def _loaded_at(route: Route) -> int:
    """Unix seconds: since when its process answers."""
    try:
        return int(os.stat(route.sockets[0]).st_mtime)
    except OSError:  # it has just gone
        return 0
