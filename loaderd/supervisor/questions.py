"""What model processes are asked again and again: what they counted, whether their door opens, their canary."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from loaderd.errors import LoaderdError
from loaderd.rules import Rules
from loaderd.states import ModelState
from loaderd.supervisor.health import Health
from loaderd.supervisor.model.managed import ManagedModel
from loaderd.supervisor.telemetry import Telemetry

log = logging.getLogger(__name__)


class Questions:
    """Health and telemetry are told the answers."""

    def __init__(
        self, health: Health, telemetry: Telemetry, rules: Callable[[], Rules], stopping: asyncio.Event
    ) -> None:
        self._health = health
        self._telemetry = telemetry
        self._rules = rules
        self._stopping = stopping
        self._open: dict[tuple[str, str], asyncio.Task[None]] = {}  # by kind and model

    def ask_counters(self, model: ManagedModel) -> None:
        self._ask("count", model, self.count)

    def ask_door(self, model: ManagedModel) -> None:
        self._ask("door", model, self._knock)

    def ask_canary(self, model: ManagedModel) -> None:
        self._ask("canary", model, self._check_canary)

    def _ask(self, kind: str, model: ManagedModel, ask: Callable[[ManagedModel], Coroutine[Any, Any, None]]) -> None:
        """Puts a question to a model's process in the background, unless the last one of its kind is still open: one
        that does not answer holds up nobody else."""
        model_id = model.model_id
        if (kind, model_id) in self._open or self._stopping.is_set():
            return
        task = self._open[kind, model_id] = asyncio.get_running_loop().create_task(ask(model))

        def done(task: asyncio.Task[None]) -> None:
            del self._open[kind, model_id]
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("%s could not be asked for its %s", model_id, kind, exc_info=error)

        task.add_done_callback(done)

    async def count(self, model: ManagedModel) -> None:
        """Returns when the model's processes told their counters, or did not in time."""
        if model.state is not ModelState.LOADED:
            return
        counters = await model.count()
        if model.state is ModelState.LOADED:
            self._health.counted(model.model_id, counters)
            if counters is not None:
                runtime = model.runtime
                self._telemetry.counted(model.model_id, counters, runtime.private_bytes, runtime.gpu_bytes)

    async def _knock(self, model: ManagedModel) -> None:
        crew = model.crew
        answers = await model.door_answers()
        if model.crew is crew:
            self._health.knocked(model.model_id, answers)

    async def _check_canary(self, model: ManagedModel) -> None:
        crew, result = model.crew, None
        if crew is not None and model.state is ModelState.LOADED:
            with contextlib.suppress(TimeoutError, LoaderdError):
                async with asyncio.timeout(self._rules().hang_seconds):
                    result = await crew.canary()
        if model.crew is crew:
            self._health.checked(model.model_id, result)

    def cancel(self) -> list[asyncio.Task[None]]:
        """Those that were open; they end soon."""
        questions = list(self._open.values())
        for question in questions:
            question.cancel()
        return questions
