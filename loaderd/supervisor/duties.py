"""What the daemon does again and again while it runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from loaderd.reporter import Heartbeat
from loaderd.states import ModelState
from loaderd.supervisor.children import kernel_kills, reap_strangers
from loaderd.supervisor.house import House
from loaderd.supervisor.wishes import Wishes

log = logging.getLogger(__name__)

RETRY_REFUSED_SECONDS = 2.0


class Duties:
    """Each goes on when it failed once, and none holds up another."""

    def __init__(self, house: House, wishes: Wishes) -> None:
        self._house = house
        self._wishes = wishes
        self._optimised_at = time.monotonic()

    def start(self) -> list[asyncio.Task[None]]:
        """They run until they are cancelled."""
        config = self._house.config
        return [
            asyncio.create_task(self._every(seconds, do))
            for seconds, do in (
                (config.heartbeat_seconds, self._heartbeat),
                (config.heartbeat_seconds, self._look_at_gpus),
                (config.usage_interval_seconds, self._count_all),
                (config.memory_interval_seconds, self._observe_memory),
                (config.door_interval_seconds, self._knock_at_all),
                (config.idle_interval_seconds, self._give_back),
                (RETRY_REFUSED_SECONDS, self._retry_refused),
            )
        ]

    async def _every(self, seconds: float, do: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            try:
                await do()
            except Exception:
                log.exception("%s failed; it is tried again", do.__name__)
            await asyncio.sleep(seconds)

    async def _heartbeat(self) -> None:
        """Tells that the daemon lives, and how it and its models are."""
        house = self._house
        kernel_kills.look()
        facts = house.facts()
        budget = facts["budget"]
        house.health.memory(budget["used_bytes"], budget["budget_bytes"])
        house.telemetry.host(
            budget["used_bytes"],
            budget["reserved_bytes"],
            budget["budget_bytes"],
            facts["memory"]["available_bytes"],
            budget["gpu_used_bytes"],
        )
        house.health.tick()
        house.telemetry.tick()
        for model_id in house.health.due():
            house.questions.ask_canary(house.model(model_id))
        runtimes = {m.model_id: m.runtime for m in house.models() if m.state is ModelState.LOADED}
        house.report(Heartbeat(time.time(), facts, runtimes))
        if house.forking.zygotes.births == 0:
            reap_strangers()

    async def _look_at_gpus(self) -> None:
        """Apart from the heartbeat, which a driver that does not answer would hold up."""
        await self._house.look_at_gpus()

    async def _count_all(self) -> None:
        for model in self._house.models():
            if model.state is ModelState.LOADED:
                self._house.questions.ask_counters(model)

    async def _knock_at_all(self) -> None:
        for model in self._house.models():
            if model.state is ModelState.LOADED:
                self._house.questions.ask_door(model)

    async def _observe_memory(self) -> None:
        await self._house.budget.look(0.0)
        await self._house.thrift.correct()
        self._house.admission.changed()

    async def _give_back(self) -> None:
        thrift, rules = self._house.thrift, self._house.rules
        await thrift.end_idle()
        if time.monotonic() - self._optimised_at >= rules.optimization_interval_seconds:
            self._optimised_at = time.monotonic()
            await thrift.optimise(pressure_percent=rules.alert_memory_percent)

    async def _retry_refused(self) -> None:
        await self._wishes.retry()
