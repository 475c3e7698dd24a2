"""The protocol's statistics extension: what models did since they were loaded, in Triton's shape.

The counts are those of the process that serves a model now, and of the answers that were kept of it: they begin anew
with each load, and with each new process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from loaderd.errors import LoaderUnreachable

if TYPE_CHECKING:
    from loaderd.gateway.cache import Figures
    from loaderd.gateway.lookup import Lookup
    from loaderd.gateway.routes import Route
    from loaderd.gateway.supervisor import Supervisor

ANSWER_SECONDS = 5.0


async def statistics(
    supervisor: Supervisor, lookup: Lookup, name: str | None = None, version: str | None = None
) -> dict[str, Any]:
    """{"model_stats": [...]}: of each loaded version that the name means, or of every loaded model without a name.

    Raises UnknownModel; ModelNotLoaded when nothing that the name means is loaded; LoaderUnreachable when the figures
    do not come in time.
    """
    named = await _meant(supervisor, lookup, name, version)
    told = await _ask(supervisor, [route.model_id for _, route in named])
    return {
        "model_stats": [
            _entry(shown, route.version, told[route.model_id], supervisor.cache.figures_of_load(route.model_id))
            for shown, route in named
            if route.model_id in told
        ]
    }


async def _meant(
    supervisor: Supervisor, lookup: Lookup, name: str | None, version: str | None
) -> list[tuple[str, Route]]:
    """(the name to show, the version) of each that is meant and loaded."""
    routes = supervisor.routes
    if name is None:
        return [(route.model_id, route) for route in routes.models.values() if route.is_ready]
    if version is None and name in routes.lineages:
        ready = [(name, route) for route in routes.lineages[name] if route.is_ready]
        if ready:
            return ready
    target = await lookup.find(name, version)
    return [(name, target.route.require_ready())]


async def _ask(supervisor: Supervisor, model_ids: list[str]) -> dict[str, Any]:
    if not model_ids:
        return {}
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            told: dict[str, Any] = await supervisor.ask("statistics", model_ids=model_ids)
    except TimeoutError:
        raise LoaderUnreachable(
            f"loaderd did not tell its figures within {ANSWER_SECONDS:g} s; try again in a moment.",
            timeout_seconds=ANSWER_SECONDS,
        ) from None
    return told


def _entry(name: str, version: str, told: Mapping[str, Any], cached: Figures) -> dict[str, Any]:
    counters = told["counters"]
    hits = cached.hits + cached.shared
    requests, errors = counters.get("requests", 0), counters.get("errors", 0)
    failed_seconds = counters.get("failed_seconds", 0.0)
    input_seconds = counters.get("input_seconds", 0.0)
    return {
        "name": name,
        "version": version,
        "last_inference": int(counters.get("last_at", 0.0) * 1000),
        "inference_count": counters.get("items", 0) - counters.get("failed_items", 0),
        "execution_count": counters.get("batches", 0),
        "inference_stats": {
            # Answers out of the cache are successes that took no time of the model.
            "success": _duration(requests - errors + hits, counters.get("latency_seconds", 0.0) - failed_seconds),
            "fail": _duration(errors, failed_seconds),
            # Reading a request belongs to what we count as its wait for the model; the protocol tells it by itself.
            "queue": _duration(requests, counters.get("queue_seconds", 0.0) - input_seconds),
            "compute_input": _duration(requests, input_seconds),
            "compute_infer": _duration(requests, counters.get("infer_seconds", 0.0)),
            "compute_output": _duration(requests, counters.get("output_seconds", 0.0)),
            "cache_hit": _duration(hits, 0.0),
            "cache_miss": _duration(cached.misses, 0.0),
        },
        "response_stats": {},
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": _duration(calls, 0.0),
                "compute_infer": _duration(calls, seconds),
                "compute_output": _duration(calls, 0.0),
            }
            for size, calls, seconds in counters.get("sizes", ())
        ],
        "memory_usage": [
            {"type": kind, "id": 0, "byte_size": size}
            for kind, size in (("CPU", told.get("private_bytes")), ("GPU", told.get("gpu_bytes")))
            if size is not None
        ],
    }


def _duration(count: int, seconds: float) -> dict[str, int]:
    return {"count": int(count), "ns": max(0, round(seconds * 1e9))}
