"""What a request's body may hold: what is taken, what makes no difference, and what is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from loaderd.errors import InvalidInput

Harmless = Mapping[str, Callable[[Any], bool]]
"""Parameters that nothing here does anything with -> for which of their values that makes no difference."""


def _any(value: Any) -> bool:
    return True


def _one_of(*values: Any) -> Callable[[Any], bool]:
    return lambda value: value in values


HARMLESS: Harmless = {
    "user": _any,
    "safety_identifier": _any,
    "metadata": _any,
    "store": _one_of(False),
    "service_tier": _one_of("auto", "default"),
    "prompt_cache_key": _any,
    "prompt_cache_retention": _any,
    "prompt_cache_options": _any,
}
HARMLESS_IN_CHAT: Harmless = {
    **HARMLESS,
    "tools": _one_of([]),
    "functions": _one_of([]),
    "tool_choice": _one_of("none", "auto"),
    "function_call": _one_of("none", "auto"),
    "parallel_tool_calls": _any,
    "modalities": _one_of(["text"]),
    "response_format": _one_of({"type": "text"}),
}
HARMLESS_IN_COMPLETIONS: Harmless = {**HARMLESS, "suffix": _one_of("")}


def taken(body: Any, known: Collection[str], harmless: Harmless) -> dict[str, Any]:
    """The parameters in `known` that the body has; null is as if it were left out. Raises InvalidInput naming the first
    that is refused."""
    if not isinstance(body, dict):
        raise InvalidInput('The body must be a JSON object, such as {"model": …}.')
    given = {name: value for name, value in body.items() if value is not None}
    for name, value in given.items():
        if name not in known and not (name in harmless and harmless[name](value)):
            what = (
                f"{name} is not supported here" if name not in harmless else f"{name} is not supported with this value"
            )
            raise InvalidInput(f"{what}; leave it out.", param=name)
    return {name: value for name, value in given.items() if name in known}


def model_named(given: dict[str, Any]) -> str:
    """Takes the model's name out of the parameters. Raises InvalidInput."""
    name = given.pop("model", None)
    if not isinstance(name, str) or not name:
        raise InvalidInput(
            "model must name a model or a lineage; GET /v1/models lists those that answer here.", param="model"
        )
    return name
