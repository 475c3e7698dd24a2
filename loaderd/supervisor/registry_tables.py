"""What the registry decides, kept up to date here: the rules, and who may use the inference door."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping

from loaderd.reporter import Access, Reporter
from loaderd.rules import Rules

log = logging.getLogger(__name__)

TakeRules = Callable[[Rules, bool], None]
"""Called with the rules, and whether they were asked for after the newest move of an alias that was made here: if
not, their lineages do not know of that move."""


class RegistryTables:
    """Asks when told that something changed, and again when asking failed. While the registry is away the last answer
    holds; before the first, the defaults do."""

    def __init__(
        self,
        reporter: Reporter,
        retry_seconds: float,
        take_rules: TakeRules,
        take_access: Callable[[Mapping[str, Access]], None],
    ) -> None:
        self._reporter = reporter
        self._retry_seconds = retry_seconds
        self._take_rules = take_rules
        self._take_access = take_access
        self._asked = 0
        self._taken = 0
        self._moved_at = 0  # the question that was put after the newest move of an alias
        self._first = asyncio.Event()
        self._questions: set[asyncio.Task[None]] = set()
        self._closed = False

    async def follow(self) -> None:
        """Asks for everything and begins to follow changes; returns with the first rules, or when they take long."""
        loop = asyncio.get_running_loop()
        self._reporter.on_access_changed(lambda: self._from_thread(loop, self.ask_access))
        self._reporter.on_rules_changed(lambda: self._from_thread(loop, self.ask_rules))
        self.ask_access()
        self.ask_rules()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._retry_seconds):
                await self._first.wait()

    @staticmethod
    def _from_thread(loop: asyncio.AbstractEventLoop, ask: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the daemon has ended
            loop.call_soon_threadsafe(ask)

    def ask_rules(self, *, alias_moved: bool = False) -> None:
        """Asks for the rules. alias_moved: an alias was just moved here, and reported: only answers to this question
        and later ones know of it."""
        if self._closed:
            return
        self._asked += 1
        if alias_moved:
            self._moved_at = self._asked
        self._in_background(self._rules(self._asked))

    def ask_access(self) -> None:
        if not self._closed:
            self._in_background(self._access())

    def close(self) -> None:
        """Asks no more."""
        self._closed = True
        for question in self._questions:
            question.cancel()

    async def _rules(self, number: int) -> None:
        while True:
            try:
                rules = await asyncio.wrap_future(self._reporter.rules())
                break
            except Exception as error:
                log.warning("the rules could not be read, those at hand hold on: %s", str(error).strip())
                await asyncio.sleep(self._retry_seconds)
                if number < self._asked:
                    return  # a later question is being put already
        if number > self._taken:
            self._taken = number
            self._take_rules(rules, number >= self._moved_at)
            self._first.set()

    async def _access(self) -> None:
        with contextlib.suppress(Exception):  # the reporter logs why; it calls back when the registry is there again
            self._take_access(await asyncio.wrap_future(self._reporter.access()))

    def _in_background(self, question: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(question)
        self._questions.add(task)
        task.add_done_callback(self._questions.discard)
