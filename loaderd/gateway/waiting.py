"""Predictions that wait for their model: it is being restarted, or it is loaded because they ask for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

from loaderd.errors import LoaderdError, ModelRestarting, Overloaded, from_message
from loaderd.gateway.body import BUDGET_BYTES
from loaderd.gateway.lookup import Lookup
from loaderd.gateway.routes import Route, Target
from loaderd.gateway.supervisor import Supervisor

MAX_WAITING = 256  # for one model; past it the answer is 429 at once
MAX_WAITING_TOGETHER = 1024  # for all models; with small bodies, which no budget counts, 64 MiB at most
MAX_WAITING_BYTES = BUDGET_BYTES // 2  # of large bodies; the rest is for models that answer
REFUSED_SECONDS = 5.0  # a model that could not be loaded is not tried again for every request
ANSWERED_SECONDS = 0.5  # nor is one that is gone again as soon as it was loaded
SWITCH_SECONDS = 1.0  # how long the supervisor may take to tell of a process that ended


class Waiting:
    """Who waits for which model, and the demands that are under way for them: one for each model."""

    def __init__(self, supervisor: Supervisor, lookup: Lookup) -> None:
        self._supervisor = supervisor
        self._lookup = lookup
        self._waiting: Counter[str] = Counter()
        self._waiting_bytes = 0
        self._demands: dict[str, asyncio.Task[None]] = {}
        self._refusals: dict[str, tuple[float, dict[str, Any]]] = {}  # until when, by the event loop's clock; what

    def require_hope(self, route: Route, body_bytes: int = 0) -> None:
        """Raises ModelNotLoaded unless waiting for the model may help, Overloaded when enough wait already, and what
        the last attempt to load it failed with while that was just now."""
        if not route.is_awaited:
            route.require_ready()
        self._raise_refusal(route)
        waiting = self._waiting[route.model_id]
        if waiting >= MAX_WAITING or (body_bytes and self._waiting_bytes + body_bytes > MAX_WAITING_BYTES):
            raise Overloaded(
                f"{route.model_id} is {route.state} and {waiting} requests wait for it already; try again in a moment.",
                model_id=route.model_id,
                queued=waiting,
            )
        if (together := self._waiting.total()) >= MAX_WAITING_TOGETHER:
            raise Overloaded(
                f"{route.model_id} is {route.state} and {together} requests wait for models already; try again in a "
                "moment.",
                model_id=route.model_id,
                queued=together,
            )

    async def until_ready(self, name: str, version: str | None, user: str, body_bytes: int) -> Target:
        """What the name means once that is ready. body_bytes: what the request holds of the budget for bodies.

        Raises what `require_hope` does and, after load_wait_seconds, ModelRestarting.
        """
        target = await self._lookup.find(name, version)
        if target.route.is_ready:
            return target
        self.require_hope(target.route, body_bytes)
        limit_seconds = self._supervisor.load_wait_seconds
        awaited = target.route
        with self._place(awaited.model_id, body_bytes):
            try:
                async with asyncio.timeout(limit_seconds):
                    while True:
                        awaited = target.route
                        self._demand(awaited, user)
                        await self._supervisor.change()
                        target = await self._lookup.find(name, version)
                        if target.route.is_ready:
                            return target
                        if not target.route.is_awaited:
                            target.route.require_ready()
                        self._raise_refusal(target.route)
            except TimeoutError:
                raise ModelRestarting(
                    f"{awaited.model_id} is {'being restarted' if awaited.recovering else 'being loaded'} and was not "
                    f"ready within {limit_seconds:g} s; try again in a moment.",
                    model_id=awaited.model_id,
                    waited_seconds=limit_seconds,
                ) from None

    async def until_told(self, gone: Route) -> None:
        """Returns when the supervisor's table has taken notice that this process is gone, or will not in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SWITCH_SECONDS):
                while self._is_told(gone):
                    await self._supervisor.change()

    def _is_told(self, gone: Route) -> bool:
        present = self._supervisor.routes.models.get(gone.model_id)
        return present is not None and present.sockets == gone.sockets

    @contextlib.contextmanager
    def _place(self, model_id: str, body_bytes: int) -> Iterator[None]:
        self._waiting[model_id] += 1
        self._waiting_bytes += body_bytes
        try:
            yield
        finally:
            self._waiting_bytes -= body_bytes
            self._waiting[model_id] -= 1
            if not self._waiting[model_id]:
                del self._waiting[model_id]

    def _raise_refusal(self, route: Route) -> None:
        refusal = self._refusals.get(route.model_id)
        if refusal is None or route.recovering:
            return
        if asyncio.get_running_loop().time() < refusal[0]:
            raise from_message(refusal[1])
        del self._refusals[route.model_id]

    def _demand(self, route: Route, user: str) -> None:
        if not route.recovering and route.model_id not in self._demands:
            self._demands[route.model_id] = asyncio.create_task(self._ask_for(route.model_id, user))

    async def _ask_for(self, model_id: str, user: str) -> None:
        """Has the supervisor load the model. Whoever waits learns of it by the table, or by the refusal."""
        try:
            await self._supervisor.ask("demand", model_id=model_id, user=user)
            self._supervisor.wake()
            await asyncio.sleep(ANSWERED_SECONDS)
        except LoaderdError as error:
            self._refusals[model_id] = asyncio.get_running_loop().time() + REFUSED_SECONDS, error.to_message()
        finally:
            del self._demands[model_id]
            self._supervisor.wake()
