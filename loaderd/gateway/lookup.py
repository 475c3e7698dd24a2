"""What a name at the door means: a route, or a registered model that was never loaded and has none yet."""

from __future__ import annotations

import asyncio

from loaderd.errors import LoaderUnreachable, UnknownModel
from loaderd.gateway.routes import Route, Routes
from loaderd.gateway.supervisor import Supervisor

# Names that lead nowhere may come in floods: the registry is asked for all of them together, this often.
FRESH_SECONDS = 1.0
INDEX_SECONDS = 5.0


class Lookup:
    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._asked: asyncio.Task[Routes] | None = None
        self._fresh_until = 0.0  # by the event loop's clock

    async def find(self, name: str, version: str | None = None) -> Route:
        """The version that a name means, see `Routes.resolve`; raises UnknownModel."""
        try:
            return self._supervisor.routes.resolve(name, version)
        except UnknownModel:
            return (await self._registered()).resolve(name, version)

    async def exactly(self, model_id: str) -> Route:
        """The version with this id, whatever lineage has the same name; raises UnknownModel."""
        try:
            return self._supervisor.routes.exactly(model_id)
        except UnknownModel:
            return (await self._registered()).exactly(model_id)

    async def _registered(self) -> Routes:
        """Every registered version, as of about a second ago; concurrent callers share one question."""
        is_over = self._asked is None or self._asked.done()
        if self._asked is None or (is_over and asyncio.get_running_loop().time() >= self._fresh_until):
            self._asked = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asked)

    async def _ask(self) -> Routes:
        try:
            async with asyncio.timeout(INDEX_SECONDS):
                return Routes.from_index(await self._supervisor.ask("index"))
        except TimeoutError:
            raise LoaderUnreachable(
                f"The registry did not say within {INDEX_SECONDS:g} s which models there are; try again in a moment.",
                timeout_seconds=INDEX_SECONDS,
            ) from None
        finally:
            self._fresh_until = asyncio.get_running_loop().time() + FRESH_SECONDS
