"""What the gateway is told, what it asks for, and what it tells."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from loaderd.errors import UnknownModel
from loaderd.protocol import KeptAnswers, Lost
from loaderd.reporter import Reporter, Usage
from loaderd.states import ModelState
from loaderd.supervisor.demands import Demands
from loaderd.supervisor.gateways import Gateways
from loaderd.supervisor.house import House


class GatewaySide:
    def __init__(self, house: House, demands: Demands, reporter: Reporter) -> None:
        self._house = house
        self._demands = demands
        self._reporter = reporter

    def gateways(self) -> Gateways:
        """Not running yet."""
        return Gateways(
            self._house.config,
            self._table,
            self._answer,
            self._house.report,
            on_silent=self._on_silent,
            on_lost=self._on_lost,
            on_kept=self._on_kept,
        )

    def _table(self) -> dict[str, Any]:
        rules = self._house.rules
        return {
            "models": {model.model_id: model.route() for model in self._house.models() if model.spec is not None},
            "lineages": self._house.lineages.table(),
            "settings": {
                "load_wait_seconds": rules.load_wait_seconds,
                "sampling_rate": rules.sampling_rate,
                "slow_request_seconds": rules.slow_request_seconds,
                "cache_max_bytes": rules.cache_max_bytes // max(1, self._house.config.gateway_processes),  # of each
            },
        }

    async def _answer(self, message: dict[str, Any]) -> Any:
        match message["command"]:
            case "load" | "unload" as kind:
                return await asyncio.wrap_future(self._reporter.submit(kind, message["model_id"], message["user"]))
            case "demand":
                await self._demands.satisfy(message["model_id"], message["user"])
                return {"model_id": message["model_id"], "state": ModelState.LOADED.value}
            case "index":
                rows = await asyncio.wrap_future(self._reporter.index())
                rules = self._house.rules
                return [{**row, "autoload": rules.policy_of(row["model_id"]).autoload} for row in rows]
            case "metrics":
                return self._house.metrics()
            case "statistics":
                return await self._statistics(frozenset(message["model_ids"]))
            case other:
                raise UnknownModel(f"The gateway asked for {other!r}, which loaderd does not know.")

    async def _statistics(self, model_ids: Collection[str]) -> dict[str, Any]:
        """What the processes of these models counted by now and hold, by model_id; of those that are loaded."""
        models = [
            model for model in self._house.models() if model.model_id in model_ids and model.state is ModelState.LOADED
        ]
        # One that does not answer tells its last ones.
        await asyncio.gather(*(self._house.count(model) for model in models))
        return {
            model.model_id: {
                "counters": model.crew.counters,
                "private_bytes": model.runtime.private_bytes,
                "gpu_bytes": model.runtime.gpu_bytes,
            }
            for model in models
            if model.crew is not None
        }

    def _on_silent(self, model_id: str, data_socket: str) -> None:
        """A client did not get through to a model's process: is that so?"""
        model = self._house.model(model_id)
        if model.crew is not None and data_socket in model.crew.sockets:
            self._house.questions.ask_door(model)

    def _on_lost(self, lost: Lost) -> None:
        """Requests that ended in an error, and that no process could count."""
        self._house.report(
            Usage(
                model_id=lost.model_id,
                requests=lost.requests,
                items=0,
                errors=lost.requests,
                latency_seconds=lost.latency_seconds,
                last_at=lost.at,
                # What ended the process says more than that it ended.
                last_error=self._house.model(lost.model_id).newest_death or lost.error,
            )
        )
        self._house.telemetry.lost(lost)
        self._house.health.lost(lost.model_id, lost.requests)

    def _on_kept(self, kept: KeptAnswers) -> None:
        """What the gateway's cache did for a model."""
        if kept.hits or kept.shared or kept.misses:
            self._house.report(
                Usage(
                    model_id=kept.model_id,
                    requests=0,
                    items=0,
                    errors=0,
                    latency_seconds=0.0,
                    last_at=kept.at,
                    cache_hits=kept.hits + kept.shared,
                    cache_misses=kept.misses,
                )
            )
        self._house.telemetry.kept(kept)
