"""The gateways behind one port: one process, or as many as are set. Each has its own connections to the models.

The first one decides whether the port can be had; the others join it, and the kernel spreads new connections over
all. The private door, and gRPC, are the first one's.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

from loaderd.protocol import KeptAnswers, Lost
from loaderd.reporter import Access, Report
from loaderd.supervisor.config import DaemonConfig
from loaderd.supervisor.gateway_link import Answer, GatewayLink, Table


class Gateways:
    """The arguments are those of GatewayLink."""

    def __init__(
        self,
        config: DaemonConfig,
        table: Table,
        answer: Answer,
        report: Callable[[Report], None],
        *,
        on_silent: Callable[[str, str], None],
        on_lost: Callable[[Lost], None],
        on_kept: Callable[[KeptAnswers], None],
    ) -> None:
        self._on_kept = on_kept
        self._kept: dict[str, dict[int, tuple[int, int]]] = {}  # by model and gateway: entries and bytes
        self._links = [
            GatewayLink(
                config if number == 0 else _joining(config, number),
                table,
                answer,
                report,
                on_silent=on_silent,
                on_lost=on_lost,
                on_kept=lambda kept, number=number: self._add_kept(number, kept),  # type: ignore[misc]
                counts_of_others=lambda number=number: self._counts_but(number),  # type: ignore[misc]
                is_shared=lambda number=number: self._is_shared(number),  # type: ignore[misc]
            )
            for number in range(max(1, config.gateway_processes))
        ]

    async def run(self) -> None:
        """Keeps all of them running until it is cancelled."""
        async with asyncio.TaskGroup() as running:
            for number, link in enumerate(self._links):
                running.create_task(link.run() if number == 0 else self._run_behind_the_first(link))

    async def _run_behind_the_first(self, link: GatewayLink) -> None:
        first = self._links[0]
        await first.has_listened.wait()
        link.inference_port = first.listened_port
        await link.run()

    @property
    def listening(self) -> dict[str, Any] | None:
        """See GatewayLink.listening; of the first one."""
        return self._links[0].listening

    async def publish_routes(self) -> None:
        """Pushes the whole table and returns when all work by it."""
        await asyncio.gather(*(link.publish_routes() for link in self._links))

    def push_routes(self) -> None:
        for link in self._links:
            link.push_routes()

    async def forget_answers(self, model_id: str | None) -> int:
        """How many kept answers were dropped, by all together. Raises LoaderUnreachable."""
        return sum(await asyncio.gather(*(link.forget_answers(model_id) for link in self._links)))

    def set_access(self, access: Mapping[str, Access]) -> None:
        for link in self._links:
            link.set_access(access)

    def _is_shared(self, number: int) -> bool | None:
        """Whether the port is another gateway's already, so that this one joins it; None: it is for this one alone."""
        if len(self._links) == 1:
            return None
        return any(link.listening is not None for at, link in enumerate(self._links) if at != number)

    def _counts_but(self, number: int) -> list[dict[str, Any]]:
        return [link.counts for at, link in enumerate(self._links) if at != number and link.counts]

    def _add_kept(self, number: int, kept: KeptAnswers | None) -> None:
        """What one gateway tells of its cache, with what all of them keep of the model; None: it ended."""
        if kept is None:
            for model_id in [name for name, of_model in self._kept.items() if number in of_model]:
                self._add_kept(number, KeptAnswers(model_id, time.time(), 0, 0, 0, 0, 0))
            return
        of_model = self._kept.setdefault(kept.model_id, {})
        of_model[number] = kept.entries, kept.bytes
        entries, size = (sum(each) for each in zip(*of_model.values(), strict=True))
        self._on_kept(dataclasses.replace(kept, entries=entries, bytes=size))


def _joining(config: DaemonConfig, number: int) -> DaemonConfig:
    socket = config.gateway_socket
    return dataclasses.replace(
        config, grpc_port=None, gateway_socket=socket.with_name(f"{socket.stem}-{number}{socket.suffix}")
    )
