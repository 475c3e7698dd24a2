"""Copies of answered predictions for a candidate: sent behind the client's answer, compared, never in its way."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from loaderd import wire
from loaderd.errors import LoaderdError
from loaderd.gateway import comparing
from loaderd.gateway.deadline import Deadline
from loaderd.gateway.links import Links, NotComputed, require_answer
from loaderd.gateway.routes import Split
from loaderd.gateway.tally import Ledger
from loaderd.gateway.told import take_told

log = logging.getLogger(__name__)

MAX_COPIES = 32  # under way at once, the comparison of their answers included
MAX_COPIES_BYTES = 64 * 1024 * 1024
COMPARING_SHARE = 0.1  # of the event loop's time at most


class Shadow:
    def __init__(self, links: Links, ledger: Ledger, timeout_seconds: float) -> None:
        self._links = links
        self._ledger = ledger
        self._timeout_seconds = timeout_seconds
        self._copies: set[asyncio.Task[None]] = set()
        self._bytes = 0
        self._comparing = asyncio.Lock()  # one comparison at a time, with a pause behind each

    def copy(self, split: Split, kind: wire.Kind, head: bytes, pieces: Sequence[bytes], answer: wire.Message) -> None:
        """Sends the request to the candidate as well; drops it when too many are under way. Returns at once."""
        size = sum(map(len, pieces)) + len(answer.body)
        if len(self._copies) >= MAX_COPIES or self._bytes + size > MAX_COPIES_BYTES:
            self._ledger.drop(split)
            return
        self._bytes += size
        copy = asyncio.create_task(self._ask(split, kind, head, pieces, answer))
        self._copies.add(copy)
        copy.add_done_callback(lambda done: self._over(done, size))

    def _over(self, copy: asyncio.Task[None], size: int) -> None:
        self._copies.discard(copy)
        self._bytes -= size
        if not copy.cancelled() and (error := copy.exception()) is not None:
            log.error("a copy for a candidate failed in the gateway", exc_info=error)

    async def _ask(
        self, split: Split, kind: wire.Kind, head: bytes, pieces: Sequence[bytes], answer: wire.Message
    ) -> None:
        began = time.perf_counter()
        status = 200
        try:
            message = await self._links.to(split.candidate).ask(
                kind, head, pieces, Deadline.after(self._timeout_seconds)
            )
            take_told(message)
            require_answer(message)
        except NotComputed:
            return  # it was unloaded a moment ago
        except LoaderdError as error:
            status = error.http_status
        self._ledger.of(split).candidate.add(time.perf_counter() - began, status)
        if status == 200:
            await self._compare(split, (answer.head, answer.body), (message.head, message.body))

    async def _compare(self, split: Split, live: comparing.Answer, candidate: comparing.Answer) -> None:
        async with self._comparing:
            began = time.perf_counter()
            try:
                compared, disagreed = comparing.compare(live, candidate)
            except comparing.NotComparable as reason:
                log.debug("answers of %s cannot be compared: %s", split.lineage, reason)
                return
            tally = self._ledger.of(split)
            tally.compared += compared
            tally.disagreed += disagreed
            took = time.perf_counter() - began
            await asyncio.sleep(took * (1 / COMPARING_SHARE - 1))
