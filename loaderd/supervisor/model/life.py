"""Where one model stands: the only place where its state changes, and what is reported of it at once."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from loaderd.errors import LoaderdError
from loaderd.protocol import ModelSpec
from loaderd.reporter import ModelRuntime, OperationProgress, StateReport
from loaderd.states import TRANSITIONS, LoadPhase, ModelState
from loaderd.supervisor.model.crew import Crew
from loaderd.supervisor.model.house import ModelHouse


class Life:
    """A model's state, and what holds in it.

    recovering: its process died and another one is on its way. awaited: it is loaded because it should be loaded, so
    requests wait for it as they do for a restart. serving: clients are sent to its processes. load_seconds: of its last
    load. load_name: of these bytes and this load: no answer outlives either. lock: held by who loads or unloads it.
    """

    def __init__(self, model_id: str, house: ModelHouse) -> None:
        self.model_id = model_id
        self.state = ModelState.UNLOADED
        self.reason = ""
        self.spec: ModelSpec | None = None
        self.crew: Crew | None = None
        self.runtime = ModelRuntime()
        self.signature: dict[str, Any] | None = None
        self.recovering = False
        self.awaited = False
        self.serving = False
        self.loaded_at = 0.0
        self.load_seconds = 0.0
        self.load_name = ""
        self.lock = asyncio.Lock()
        self._house = house
        self._moved = asyncio.Event()

    def move(
        self,
        state: ModelState,
        reason: str,
        operation_id: str | None,
        *,
        error: LoaderdError | None = None,
        **facts: Any,
    ) -> None:
        """The one function that changes the state, and says so."""
        self.require_move(state)
        self.state, self.reason = state, reason
        self.report_state(operation_id, error=error.to_message() if error else None, **facts)
        self._house.push_routes()
        self._moved.set()
        self._moved = asyncio.Event()

    def require_move(self, state: ModelState) -> None:
        if state is not self.state and state not in TRANSITIONS[self.state]:
            raise RuntimeError(f"{self.model_id} cannot go from {self.state} to {state}")

    async def settled(self) -> None:
        """Returns when no load, unload or restart of the model is under way."""
        while self.recovering or self.state in (ModelState.LOADING, ModelState.UNLOADING):
            await self._moved.wait()

    def is_served_by(self, crew: Crew) -> bool:
        return self.crew is crew and self.state is ModelState.LOADED

    @property
    def resident_seconds(self) -> float:
        """How long it has been loaded; 0.0 when it is not."""
        return time.monotonic() - self.loaded_at if self.state is ModelState.LOADED else 0.0

    def forget(self) -> None:
        """Its processes are gone, and what was true of them with them."""
        if self.runtime.gpu_bytes:
            self._house.gpu_left(self.model_id, self.runtime.gpu_bytes)
        self.serving = False
        self.crew = None
        self.signature = None
        self.runtime = ModelRuntime()

    # What is told, in the same state

    def wait(self, reason: str, operation_id: str | None) -> None:
        """Says what a load waits for; the state stays what it is."""
        self.reason = reason
        self.runtime = ModelRuntime(phase=LoadPhase.QUEUED)
        self.report_state(operation_id)
        self.progress(operation_id, LoadPhase.QUEUED, 0.0)

    def tell_again(self, reason: str) -> None:
        """Says something else of the state that it is in."""
        if reason != self.reason:
            self.reason = reason
            self.report_state(None, is_no_move=True)

    def report_state(self, operation_id: str | None, **facts: Any) -> None:
        self._house.report(
            StateReport(
                model_id=self.model_id,
                state=self.state,
                reason=self.reason,
                at=time.time(),
                operation_id=operation_id,
                digest=self.spec.digest if self.spec else None,
                runtime=self.runtime,
                **facts,
            )
        )

    def progress(self, operation_id: str | None, phase: LoadPhase, progress: float) -> None:
        if operation_id is not None:
            self._house.report(OperationProgress(operation_id, self.model_id, phase, progress, time.time()))
