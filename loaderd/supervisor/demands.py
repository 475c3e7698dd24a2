"""The loads that predictions wait for."""

from __future__ import annotations

import asyncio

from loaderd.errors import InsufficientMemory, ModelNotLoaded, from_message
from loaderd.reporter import Reporter
from loaderd.states import ModelState
from loaderd.supervisor.house import House


class Demands:
    """All that ask for one model at the same time share one load."""

    def __init__(self, house: House, reporter: Reporter) -> None:
        self._house = house
        self._reporter = reporter
        self._loads: dict[str, asyncio.Task[None]] = {}  # by model_id

    async def satisfy(self, model_id: str, user: str) -> None:
        """Returns when the model that a prediction waits for is loaded; raises why it could not be. Its load goes on
        when one of those that share it stops waiting."""
        task = self._loads.get(model_id)
        if task is None:
            task = self._loads[model_id] = asyncio.get_running_loop().create_task(self._load(model_id, user))
            self._house.demanded.add(model_id)

            def done(task: asyncio.Task[None]) -> None:
                del self._loads[model_id]
                self._house.demanded.discard(model_id)
                if not task.cancelled():
                    task.exception()  # read here: nobody may be waiting any more

            task.add_done_callback(done)
        await asyncio.shield(task)

    async def _load(self, model_id: str, user: str) -> None:
        model = self._house.model(model_id)
        await model.settled()  # a restart or a load that is under way may be all that it takes
        if model.state is ModelState.LOADED:
            return
        if model.state is ModelState.ERROR or not self._house.rules.policy_of(model_id).autoload:
            # One that failed waits for a person: predictions would have it fail again and again.
            because = model.reason or "it was not loaded since loaderd started."
            raise ModelNotLoaded(
                f"{model_id} is {model.state.value} and is not loaded for a prediction: {because}",
                model_id=model_id,
                state=model.state.value,
            )
        answer = await asyncio.wrap_future(self._reporter.submit("demand", model_id, user))
        if answer.get("error"):
            error = from_message(answer["error"])
            if isinstance(error, InsufficientMemory):
                self._house.health.refused(model_id, error.message)
            raise error
        if answer["state"] != ModelState.LOADED:
            raise ModelNotLoaded(
                f"{model_id} was loaded for a prediction and is {answer['state']} by now; repeat the request.",
                model_id=model_id,
            )

    def cancel(self) -> list[asyncio.Task[None]]:
        """Those that were under way; they end soon."""
        loads = list(self._loads.values())
        for load in loads:
            load.cancel()
        return loads
