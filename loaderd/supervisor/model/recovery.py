"""The way back of one model whose only process died: another load after a pause, which somebody's own load may take
over."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from loaderd.errors import InsufficientMemory, LoaderdError
from loaderd.protocol import ModelSpec
from loaderd.states import ModelState
from loaderd.supervisor.model.background import Background
from loaderd.supervisor.model.house import ModelHouse
from loaderd.supervisor.model.life import Life
from loaderd.supervisor.model.restarts import Attempts, Restart

log = logging.getLogger(__name__)

Load = Callable[[ModelSpec, str], Awaitable[Any]]


class Recovery:
    """load(spec, reason): loads the model for it, with the model's lock held. task: the newest one's, done or not.
    taken_over: somebody's load waits for the attempt that is under way: no more are made."""

    def __init__(self, life: Life, house: ModelHouse, attempts: Attempts, background: Background, load: Load) -> None:
        self.task: asyncio.Task[None] | None = None
        self.taken_over = asyncio.Event()
        self._life = life
        self._house = house
        self._attempts = attempts
        self._background = background
        self._load = load
        self._owed: tuple[ModelSpec, Restart] | None = None  # of a process that died, until it is loaded or given up

    def begin(self, spec: ModelSpec, restart: Restart) -> None:
        self._life.recovering = True
        self._owed = (spec, restart)
        self.task = self._background.start(self._recover(spec, restart))

    async def _recover(self, spec: ModelSpec, restart: Restart) -> None:
        """Loads the model again after the pause. Its failure is reported as the model's state."""
        life = self._life
        try:
            await asyncio.sleep(restart.pause_seconds)
            async with life.lock:
                if life.state is ModelState.LOADED:
                    return  # by a load that came before its turn
                await self._load(spec, f"its process died; attempt {restart.attempt} of {self._attempts.limit}")
        except LoaderdError as error:
            log.error("%s could not be started again: %s", life.model_id, error)
            if self.taken_over.is_set():
                return  # who waits tries it now
            self._owed = None
            if isinstance(error, InsufficientMemory):
                self._house.refused(spec, error.message)
            elif error.facts.get("exit_signal") is None:
                self._house.gave_up(life.model_id, error.message)
            else:
                self._house.died(life.model_id, self._attempts.restarts.restarts, gave_up=True)
        finally:
            if self.task is asyncio.current_task():
                life.recovering = False

    # A load, its own or somebody's

    def restart_after(self, error: LoaderdError) -> Restart | None:
        """The next attempt when the process died by a signal while loading: anything else would only repeat itself."""
        if error.facts.get("exit_signal") is None or self.taken_over.is_set() or self._house.stopping.is_set():
            return None
        restarts = self._attempts.restarts
        restart = restarts.died(0.0, self._attempts.limit)
        if restart is None:
            attempts = restarts.tried + restarts.restarts
            error.message += f" It was tried {attempts} times in a row." if attempts > 1 else ""
        elif self._life.recovering:
            if self._owed is not None:
                self._owed = (self._owed[0], restart)
            self._house.died(self._life.model_id, restart.attempt, gave_up=False)
        return restart

    async def pause(self, error: LoaderdError, restart: Restart, operation_id: str | None) -> None:
        """The backoff between two attempts of one load. Raises `error` when somebody's load takes over meanwhile."""
        again = self._attempts.sentence(restart)
        self._life.wait(f"{error.message} {again[0].upper()}{again[1:]}.", operation_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(restart.pause_seconds):
                await self.taken_over.wait()
        if self.taken_over.is_set():
            raise error

    def forget(self) -> None:
        """The model is loaded, or is not to be loaded any more: no restart is owed."""
        self._owed = None

    def load_failed(self, error: LoaderdError) -> None:
        """Somebody's load failed, and with it a restart that it had taken over."""
        owed, self._owed = self._owed, None
        if owed is not None and isinstance(error, InsufficientMemory):
            self._house.refused(owed[0], error.message)  # as the recovery would have been

    def load_cancelled(self) -> None:
        """Somebody's load was cancelled: a restart that it had taken over is made after all, unless the model was
        unloaded."""
        life = self._life
        if self._owed is None or self._house.stopping.is_set():
            return
        if self.task is not None and not self.task.done() and not self.task.cancelling():
            life.recovering = True
            return
        spec, restart = self._owed
        self._attempts.restarts.resume(restart)
        self.begin(spec, restart)
        if life.state is ModelState.UNLOADED:
            life.reason = f"the load was cancelled; {self._attempts.sentence(restart)}"
            life.report_state(None)
        self._house.push_routes()
