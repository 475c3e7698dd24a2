"""The registry's rules: followed when they change, kept while it is away, and never older than a move made here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

from loaderd.rules import Rules
from loaderd.supervisor.registry_tables import RegistryTables


class Registry:
    """A reporter whose answers the test gives, in the order and at the time that it likes."""

    def __init__(self) -> None:
        self.questions: list[Future[Rules]] = []
        self.asked = asyncio.Semaphore(0)
        self.changed: Callable[[], None] = lambda: None

    def rules(self) -> Future[Rules]:
        self.questions.append(Future())
        self.asked.release()
        return self.questions[-1]

    def access(self) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result({})
        return future

    def on_rules_changed(self, callback: Callable[[], None]) -> None:
        self.changed = callback

    def on_access_changed(self, callback: Callable[[], None]) -> None:
        pass


class Scene:
    def __init__(self) -> None:
        self.registry = Registry()
        self.taken: list[tuple[int, bool]] = []
        self.tables = RegistryTables(
            self.registry,  # type: ignore[arg-type]
            0.01,
            lambda rules, is_newer: self.taken.append((rules.max_concurrent_loads, is_newer)),
            lambda access: None,
        )

    async def asked(self, count: int) -> None:
        await asyncio.wait_for(self.registry.asked.acquire(), 5)
        assert len(self.registry.questions) >= count

    async def answer(self, number: int, marked: int) -> None:
        """Answers the question with rules that are told apart by `marked`."""
        self.registry.questions[number].set_result(Rules(max_concurrent_loads=marked))
        for _ in range(5):
            await asyncio.sleep(0)


def play(scenario: Callable[[Scene], Coroutine[Any, Any, None]]) -> Scene:
    async def run() -> Scene:
        scene = Scene()
        await scenario(scene)
        scene.tables.close()
        return scene

    return asyncio.run(run())


def test_a_change_is_asked_for_and_taken() -> None:
    async def scenario(scene: Scene) -> None:
        following = asyncio.ensure_future(scene.tables.follow())
        await scene.asked(1)
        await scene.answer(0, 1)
        await following
        scene.registry.changed()
        await scene.asked(2)
        await scene.answer(1, 2)

    assert play(scenario).taken == [(1, True), (2, True)]


def test_an_answer_that_was_overtaken_by_a_later_one_is_dropped() -> None:
    async def scenario(scene: Scene) -> None:
        scene.tables.ask_rules()
        scene.tables.ask_rules()
        await scene.asked(1)
        await scene.asked(2)
        await scene.answer(1, 2)
        await scene.answer(0, 1)

    assert play(scenario).taken == [(2, True)]


def test_an_answer_to_a_question_before_a_move_of_an_alias_is_told_apart() -> None:
    async def scenario(scene: Scene) -> None:
        scene.tables.ask_rules()
        await scene.asked(1)
        scene.tables.ask_rules(alias_moved=True)
        await scene.asked(2)
        await scene.answer(0, 1)
        await scene.answer(1, 2)

    assert play(scenario).taken == [(1, False), (2, True)]


def test_while_the_registry_is_away_it_is_asked_again() -> None:
    async def scenario(scene: Scene) -> None:
        scene.tables.ask_rules()
        await scene.asked(1)
        scene.registry.questions[0].set_exception(OSError("Postgres is away"))
        await scene.asked(2)
        await scene.answer(1, 2)

    assert play(scenario).taken == [(2, True)]


def test_the_start_does_not_wait_for_ever_for_the_first_rules() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.tables.follow()

    assert play(scenario).taken == []
