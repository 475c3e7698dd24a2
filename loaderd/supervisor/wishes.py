"""What the registry wishes loaded: at the start all of it, and what did not fit again when there is room."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from loaderd.errors import InsufficientMemory, LoaderdError
from loaderd.protocol import ModelSpec
from loaderd.reporter import Reporter
from loaderd.scheduler import Decision
from loaderd.states import ModelState
from loaderd.supervisor.admission import FRESH_SECONDS
from loaderd.supervisor.house import House
from loaderd.supervisor.operations import Operations

log = logging.getLogger(__name__)


class Wishes:
    def __init__(self, house: House, operations: Operations, reporter: Reporter) -> None:
        self._house = house
        self._operations = operations
        self._reporter = reporter

    def load_all(self, wanted: Sequence[ModelSpec]) -> None:
        """Loads what should be loaded, highest priority first. What does not fit is not made to fit at the cost of
        others that should be loaded as well and are worth no less."""
        priority = {spec.model_id: self._house.rules.policy_of(spec.model_id).priority for spec in wanted}
        for spec in sorted(wanted, key=lambda spec: -priority[spec.model_id]):
            at_least = frozenset(other for other in priority if priority[other] >= priority[spec.model_id])
            self._load(spec, "wanted when loaderd started", at_least - {spec.model_id})

    def _load(self, spec: ModelSpec, reason: str, protected: frozenset[str]) -> None:
        """Loads a model because it should be loaded. When it does not fit, it is tried again later."""
        model = self._house.model(spec.model_id)
        model.awaited = True

        def on_end(error: LoaderdError | None) -> None:
            if isinstance(error, InsufficientMemory):
                self._house.refused(spec, error.message)
            model.awaited = False
            self._house.push_routes()

        self._operations.run_own(model.load(spec, None, reason, protected=protected), on_end)

    async def retry(self) -> None:
        """Loads one of those that should be loaded and did not fit, when it fits now: nobody goes for it."""
        house, budget, unfit = self._house, self._house.budget, self._house.unfit
        by_priority = sorted(unfit.values(), key=lambda spec: -house.rules.policy_of(spec.model_id).priority)
        for spec in by_priority:
            await budget.prepare(spec)
            await budget.look(FRESH_SECONDS)
            model = house.model(spec.model_id)
            if house.stopping.is_set() or spec.model_id not in unfit:
                continue
            if model.state in (ModelState.LOADED, ModelState.ERROR):
                del unfit[spec.model_id]  # it came, or waits for a person
            elif model.state is ModelState.UNLOADED and not model.awaited:
                plan = budget.decide(budget.wish(spec))
                if plan.decision is Decision.FITS:
                    if not await self._is_still_wished(spec.model_id):
                        continue
                    if spec.model_id not in unfit or model.state is not ModelState.UNLOADED or model.awaited:
                        continue  # a command came meanwhile
                    others = frozenset(other.model_id for other in house.models()) - {spec.model_id}
                    self._load(spec, "it should be loaded, and fits now", others)
                    return  # the next one is decided on when this one is counted
                house.health.refused(spec.model_id, plan.sentence)

    async def _is_still_wished(self, model_id: str) -> bool:
        """Whether the registry wishes a refused model loaded; one that it does not wish is forgotten. False, too, while
        the registry does not answer: it is asked again at the next try."""
        try:
            async with asyncio.timeout(self._house.config.rules_seconds):
                rows = await asyncio.wrap_future(self._reporter.index())
        except Exception as error:
            log.warning("the registry does not tell whether %s should be loaded: %s", model_id, str(error).strip())
            return False
        if any(row["model_id"] == model_id and row["wished"] for row in rows):
            return True
        log.info("%s did not fit, and nobody wishes it loaded any more", model_id)
        if self._house.unfit.pop(model_id, None) is not None:
            self._house.health.dismissed(model_id)
        return False
