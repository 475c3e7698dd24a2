"""The queue before the loads, where a cancellation comes at the worst moment."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from loaderd.rules import ModelPolicy, Rules
from loaderd.scheduler import Decision, Wish
from loaderd.supervisor.admission import Admission


class Roomy:
    """A budget in which everything fits."""

    def __init__(self) -> None:
        self.promised: dict[str, Wish] = {}

    async def look(self, max_age_seconds: float) -> None:
        pass

    def decide(self, wish: Wish) -> Any:
        return SimpleNamespace(decision=Decision.FITS)


class Queue:
    """Loads that wait; each is let in by a look of the admission, and holds its place until it is cancelled."""

    def __init__(self, **priorities: int) -> None:
        rules = Rules(
            max_concurrent_loads=1, models={name: ModelPolicy(priority=level) for name, level in priorities.items()}
        )
        self.admission = Admission(lambda: rules, lambda model_id: None)
        self.budget = self.admission.budget = Roomy()  # type: ignore[assignment]

    async def wait_with(self, model_id: str, *, has_place: bool = False) -> asyncio.Task[None]:
        async def load() -> None:
            async with self.admission.admitted(
                model_id, lambda: Wish(model_id, 1), lambda waits_for: None, 1.0, has_place=has_place
            ):
                await asyncio.Event().wait()

        task = asyncio.create_task(load())
        await asyncio.sleep(0)  # it stands in the queue from its first step on
        return task

    async def let_in(self) -> set[str]:
        await self.admission._settle()
        return set(self.budget.promised)


async def end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_a_load_whose_place_is_kept_goes_before_those_of_higher_priority() -> None:
    async def settle() -> set[str]:
        queue = Queue(important=90, recovering=10)
        tasks = [await queue.wait_with("important"), await queue.wait_with("recovering", has_place=True)]
        let_in = await queue.let_in()
        await end(*tasks)
        return let_in

    assert asyncio.run(settle()) == {"recovering"}


def test_a_load_that_was_cancelled_a_moment_ago_is_promised_nothing() -> None:
    async def settle() -> set[str]:
        queue = Queue()
        cancelled, other = await queue.wait_with("cancelled"), await queue.wait_with("other")
        cancelled.cancel()
        let_in = await queue.let_in()  # before the cancelled one takes its next step
        await end(cancelled, other)
        return let_in

    assert asyncio.run(settle()) == {"other"}
