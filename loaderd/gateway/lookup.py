"""What a name at the door means: a route, or a registered model that was never loaded and has none yet."""

from __future__ import annotations

import asyncio

from loaderd.errors import LoaderUnreachable
from loaderd.gateway.routes import Routes, Target
from loaderd.gateway.supervisor import Supervisor

# Names that lead nowhere may come in floods: the registry is asked for all of them together, this often.
FRESH_SECONDS = 1.0
INDEX_SECONDS = 5.0


class Lookup:
    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._asked: asyncio.Task[Routes] | None = None
        self._fresh_until = 0.0  # by the event loop's clock

    async def find(self, name: str, version: str | None = None) -> Target:
        """What a name means, see `Routes.target`; raises UnknownModel."""
        target = self._supervisor.routes.target(name, version)
        if target is None:
            target = (await self._registered()).require_target(name, version)
        return target

    async def _registered(self) -> Routes:
        """Every registered version, as of about a second ago; concurrent callers share one question."""
        is_over = self._asked is None or self._asked.done()
        if self._asked is None or (is_over and asyncio.get_running_loop().time() >= self._fresh_until):
            self._asked = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asked)

    async def _ask(self) -> Routes:
        try:
            async with asyncio.timeout(INDEX_SECONDS):
                rows = await self._supervisor.ask("index")
        except TimeoutError:
            raise LoaderUnreachable(
                f"The registry did not say within {INDEX_SECONDS:g} s which models there are; try again in a moment.",
                timeout_seconds=INDEX_SECONDS,
            ) from None
        finally:
            self._fresh_until = asyncio.get_running_loop().time() + FRESH_SECONDS
        return self._supervisor.routes.registered(rows)
